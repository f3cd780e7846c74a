"""The masks that a search looks at."""

from collections.abc import Sequence

from ..backbone import MaskPlan
from ..errors import MaskError

# 65,536 masks.
MOST_GROUPS = 16


def all_masks(n_groups: int) -> list[str]:
    """All that are possible with groups of equal size: 2 to the power of their number. The first bit is the group next
    to the input (Dukić and Šnajder, 2024, whose configurations these are).

    RAISES (MaskError): There are no groups, or too many for a list of all masks.
    """
    if not 1 <= n_groups <= MOST_GROUPS:
        raise MaskError(
            f"{n_groups} groups of layers are not allowed. Use 1 to {MOST_GROUPS}, as N groups make 2 to the power of "
            f"N masks, or name the masks."
        )
    return [f"bits:{number:0{n_groups}b}" for number in range(2**n_groups)]


def check_masks(masks: Sequence[str], n_layers: int) -> list[MaskPlan]:
    """RAISES (MaskError): One does not fit the model, or two are the same layers."""
    plans = [MaskPlan.parse(mask, n_layers) for mask in masks]
    seen: dict[tuple[bool, ...], str] = {}
    for plan in plans:
        if plan.unmasked in seen:
            raise MaskError(f"the masks {seen[plan.unmasked]!r} and {plan.notation!r} are the same layers. Name one.")
        seen[plan.unmasked] = plan.notation
    return plans
