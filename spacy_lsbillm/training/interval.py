"""When a checkpoint is due: after a number of steps, or after some time."""

import re
from dataclasses import dataclass

from ..errors import SettingError

SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Interval:
    """Steps or seconds between checkpoints. At most one of the two is above 0; if both are 0, there are no checkpoints.

    steps (int): Optimizer steps.
    seconds (float): Wall-clock time.
    """

    steps: int = 0
    seconds: float = 0.0

    @classmethod
    def read(cls, text: str) -> "Interval":
        """Read an interval as users write it: "200" for steps, "90s", "10m" or "2h" for time.

        RAISES (SettingError): It is neither, or not above 0.
        """
        match = re.fullmatch(r"(\d+)([smh]?)", text.strip())
        number = int(match[1]) if match else 0
        if match is None or number < 1:
            raise SettingError(
                f"--checkpoint-every {text} is not allowed: give a number of steps such as 200, or a time such as 90s, "
                f"10m or 2h."
            )
        return cls(seconds=float(number * SECONDS[match[2]])) if match[2] else cls(steps=number)

    @property
    def wanted(self) -> bool:
        """Whether there are checkpoints at all."""
        return bool(self.steps or self.seconds)

    def due(self, steps: int, seconds: float) -> bool:
        """Whether the next checkpoint is due.

        steps (int): The number of finished steps.
        seconds (float): Seconds since the last checkpoint, or since the start.
        """
        if self.steps:
            return steps % self.steps == 0
        return self.seconds > 0 and seconds >= self.seconds
