"""Checks of the settings of span heads."""

from collections.abc import Sequence

from ..errors import SettingError, in_short
from ..layers import CROSS_ENTROPY, LossSettings
from ..values import is_flag, is_number

# The value of `transitions` with which a head is a CRF.
LEARNED = "learned"


def check_transitions(name: str, transitions: object, loss: LossSettings) -> None:
    """Validate the setting `transitions`.

    RAISES (SettingError): It is not allowed, or not with a loss that weights single tokens.
    """
    if transitions not in (None, LEARNED):
        raise SettingError(
            f'transitions = {transitions!r} of {name!r} is not allowed. Use "{LEARNED}" for a CRF, or null for tags '
            f"that only have to be well-formed."
        )
    if transitions == LEARNED and not loss.plain:
        changed = ", ".join(
            f"{field} = {value!r}" for field, value in vars(loss).items() if value != getattr(CROSS_ENTROPY, field)
        )
        raise SettingError(
            f'transitions = "{LEARNED}" of {name!r} is not allowed with {changed}: a CRF is trained with the '
            "likelihood "
            f"of whole sequences, while these weight single tokens. Set transitions to null, or leave the losses at "
            f"class_weights = null, focal_gamma = 0.0 and label_smoothing = 0.0."
        )


def check_spans_key(name: str, spans_key: object) -> None:
    """Validate the setting `spans_key` of a head that may also write entities.

    RAISES (SettingError): It is not allowed.
    """
    if spans_key is not None and not (isinstance(spans_key, str) and spans_key):
        raise SettingError(
            f"spans_key = {spans_key!r} of {name!r} is not allowed. Use a name, for doc.spans[name], or null for "
            f"doc.ents."
        )


def check_calibrated(name: str, value: object, setting: str = "calibrated") -> None:
    """Validate a setting that must be true or false.

    RAISES (SettingError): It is neither.
    """
    if not is_flag(value):
        raise SettingError(f"{setting} = {value!r} of {name!r} is not allowed. Use true or false.")


def check_confidence(name: str, scores: object, threshold: float | dict[str, float] | None, calibrated: object) -> None:
    """Validate the settings of confidence.

    RAISES (SettingError): One of them is not allowed.
    """
    for setting, value in (("scores", scores), ("calibrated", calibrated)):
        check_calibrated(name, value, setting)
    values = threshold.values() if isinstance(threshold, dict) else [] if threshold is None else [threshold]
    if not all(is_number(value) and 0 <= value <= 1 for value in values):
        raise SettingError(
            f"threshold = {threshold!r} of {name!r} is not allowed. Use a number from 0 to 1, a table of such numbers "
            f"by label, or null."
        )
    if threshold is not None and not scores:
        raise SettingError(f"threshold = {threshold!r} of {name!r} needs scores = true: it is compared with them.")


def check_taught(name: str, what: str, labels: Sequence[str], of_teacher: Sequence[str]) -> None:
    """Check that a component has all labels of its teacher.

    what (str): What they are called in the message.
    RAISES (SettingError): It lacks some.
    """
    others = [label for label in of_teacher if label not in labels]
    if others:
        raise SettingError(
            f"the teacher of {name!r} has {what} that {name!r} does not have: {in_short(others)}. Add them, or use "
            f"the pipeline that {name!r} came from as the teacher. It has: {in_short(labels)}."
        )
