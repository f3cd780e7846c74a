"""What a calibration is asked for."""

from dataclasses import dataclass

from ..errors import SettingError
from ..values import is_number

CANDIDATES = "candidates"


@dataclass(frozen=True)
class CalibrationSettings:
    """What is asked for beside probabilities.

    precision (float | None), recall (float | None): Thresholds for that much, of each label; one of both at most.
    guarantee (float | None): The recall of candidates that is guaranteed.
    delta (float | None): With confidence 1 - delta; None: in the mean.
    per_label (bool): For each label on its own.
    key (str): Candidates go to `doc.spans[key]`.
    components (tuple[str, ...]): The heads to calibrate; empty: all that can be.
    RAISES (SettingError): A value out of its range, or two that do not go together.
    """

    precision: float | None = None
    recall: float | None = None
    guarantee: float | None = None
    delta: float | None = None
    per_label: bool = False
    key: str = CANDIDATES
    components: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("precision", "recall", "guarantee", "delta"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and 0 < value < 1):
                raise SettingError(f"{name} = {value!r} is not allowed. Use a number above 0 and below 1, such as 0.9.")
        if self.precision is not None and self.recall is not None:
            raise SettingError("precision and recall cannot both be wanted of one threshold. Give one of them.")
        if self.guarantee is None and (self.delta is not None or self.per_label):
            raise SettingError("delta and per_label say how a recall is guaranteed: give the recall as well.")
        if not self.key:
            raise SettingError("key = '' is not allowed. Name the group of spans that candidates go to.")
