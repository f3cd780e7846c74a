"""The masks that a search tries."""

from collections.abc import Sequence

from ..backbone import MaskPlan
from ..errors import MaskError

# They have 65,536 masks.
MOST_GROUPS = 16


def all_masks(n_groups: int) -> list[str]:
    """All masks of groups of equal size: 2 to the power of the number of groups.

    The first bit is the group next to the input. These are the configurations of Dukić and Šnajder (2024).

    RAISES (MaskError): There are no groups, or too many to list all masks.
    """
    if not 1 <= n_groups <= MOST_GROUPS:
        raise MaskError(
            f"{n_groups} groups of layers are not allowed. Use 1 to {MOST_GROUPS}, as N groups have 2 to the power of "
            f"N masks, or list the masks."
        )
    return [f"bits:{number:0{n_groups}b}" for number in range(2**n_groups)]


def check_masks(masks: Sequence[str], n_layers: int) -> list[MaskPlan]:
    """Parse masks and check that they fit the model and differ.

    RETURNS (list[MaskPlan]): The masks, parsed.
    RAISES (MaskError): A mask does not fit the model, or two masks unmask the same layers.
    """
    plans = [MaskPlan.parse(mask, n_layers) for mask in masks]
    seen: dict[tuple[bool, ...], str] = {}
    for plan in plans:
        if plan.unmasked in seen:
            raise MaskError(
                f"the masks {seen[plan.unmasked]!r} and {plan.notation!r} unmask the same layers. Keep one."
            )
        seen[plan.unmasked] = plan.notation
    return plans
