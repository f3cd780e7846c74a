"""The settings of a calibration."""

from dataclasses import dataclass

from ..errors import SettingError
from ..values import is_number

CANDIDATES = "candidates"


@dataclass(frozen=True)
class CalibrationSettings:
    """What to find in addition to probabilities.

    precision (float | None), recall (float | None): Find thresholds with this precision or recall for each label; at
        most one of the two.
    guarantee (float | None): The recall of candidates to guarantee.
    delta (float | None): Guarantee it with confidence 1 - delta; None: in expectation.
    per_label (bool): Guarantee it for each label separately.
    key (str): Candidates are written to `doc.spans[key]`.
    components (tuple[str, ...]): The heads to calibrate; empty: all that can be.
    RAISES (SettingError): A value is out of range, or two exclude each other.
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
            raise SettingError("a threshold cannot be set for precision and recall at once. Give one of them.")
        if self.guarantee is None and (self.delta is not None or self.per_label):
            raise SettingError("delta and per_label say how a recall is guaranteed: give the recall as well.")
        if not self.key:
            raise SettingError("key = '' is not allowed. Name the group of spans for candidates.")
