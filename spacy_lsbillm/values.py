"""What values a setting may have.

spaCy's config system lets some of another kind through, such as the text "8" for a number, and knows nothing of what is
inside a block such as `lora`. Choices are not `Literal` types, which only that system checks: these settings are also
those of commands and of classes that are used without a config.
"""

import math
from collections.abc import Iterable
from numbers import Integral, Real

from .errors import SettingError


def check_choice(setting: str, value: object, allowed: Iterable[object], also: str = "") -> None:
    """Refuse what is not among the values of a setting.

    setting (str): Its name; an option with its dashes, which is then shown as it is typed.
    allowed (Iterable): The values.
    also (str): Further words at the end, for what is allowed beside them.
    RAISES (SettingError): It is none of them.
    """
    choices = tuple(allowed)
    if value in choices:
        return
    shown = ", ".join(map(str if setting.startswith("--") else repr, choices))
    raise SettingError(f"{_said(setting, value)} is not allowed. Use one of: {shown}{also}.")


def check_at_least(setting: str, value: object, least: int, also: str = "") -> None:
    """Refuse what is not a whole number of at least a minimum.

    setting (str), also (str): As in `check_choice`; `also` may begin with a unit.
    RAISES (SettingError): It is none.
    """
    if not (is_whole(value) and value >= least):  # type: ignore[operator]
        raise SettingError(
            f"{_said(setting, value)} is not allowed: it must be a whole number of at least {least}{also}."
        )


def _said(setting: str, value: object) -> str:
    return f"{setting} {value}" if setting.startswith("--") else f"{setting} = {value!r}"


def is_flag(value: object) -> bool:
    """True or false, and nothing that counts as one of them."""
    return isinstance(value, bool)


def is_whole(value: object) -> bool:
    """A whole number; true and false are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """A finite number; true and false are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
