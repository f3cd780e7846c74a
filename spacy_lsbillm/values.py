"""What kind of value a setting has. spaCy's config system lets some of another kind through, such as the text "8" for a
number, and knows nothing of what is inside a block such as `lora`."""

import math
from numbers import Integral, Real


def is_flag(value: object) -> bool:
    """True or false, and nothing that counts as one of them."""
    return isinstance(value, bool)


def is_whole(value: object) -> bool:
    """A whole number; true and false are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """A finite number; true and false are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
