"""What a run asks of the processes that annotate, wherever they are."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType

from .annotator import Result
from .batches import Batch


@dataclass(frozen=True)
class Outcome:
    """What has become of a batch.

    batch (Batch): Which.
    result (Result | None): None: its process has died.
    death (str): How it has died, in words.
    """

    batch: Batch
    result: Result | None
    death: str = ""


def overdue(since: float, timeout: float | None) -> bool:
    """Whether a process is to be ended.

    since (float): When it was given its batch, by the monotonic clock.
    timeout (float | None): Seconds that it may take; None: any.
    """
    return timeout is not None and time.monotonic() - since > timeout


def told_overdue(timeout: float | None) -> str:
    """What an `Outcome` says of it."""
    return f"it took longer than the {timeout:g} seconds of --timeout"


class Pool(ABC):
    """Processes that annotate. Dead ones are replaced, and those that take too long. Leaving it as a context ends all
    of them."""

    @abstractmethod
    def idle(self) -> int:
        """How many processes are ready for a batch."""

    @abstractmethod
    def submit(self, batch: Batch) -> None:
        """Give a batch to an idle process."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Outcome]:
        """What has come to an end, after so many seconds at the latest, or once a process has become idle.

        RAISES (SettingError): The pipeline cannot be loaded.
        """

    @property
    @abstractmethod
    def processes(self) -> int:
        """How many there are, those that still load the pipeline counted."""

    @abstractmethod
    def close(self) -> None:
        """End all processes, at once."""

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
