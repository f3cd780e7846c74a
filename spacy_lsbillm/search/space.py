"""The masks that a search looks at, and the trials that it makes of ways of seeing right."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..backbone import MaskPlan
from ..errors import MaskError
from .ways import identity_of, mask_of, way_of, written_settings


@dataclass(frozen=True, order=True)
class Cell:
    """One training.

    mask (str): In mask notation. Several with spaces between: a shared training, in which the mask changes from step to
        step, and which gives each of them a score.
    seed (int): Of the training.
    steps (int): Its length.
    settings (str): In which it differs from the config, as in a way; "": in none, which is also what trials say that
        were stored before there were such.
    """

    mask: str
    seed: int
    steps: int
    settings: str = ""

    @classmethod
    def of(cls, way: str, seed: int, steps: int) -> "Cell":
        """The training of one way."""
        return cls(mask_of(way), seed, steps, written_settings(way))

    @classmethod
    def shared(cls, masks: Sequence[str], seed: int, steps: int, settings: str = "") -> "Cell":
        """One training under several masks."""
        return cls(" ".join(masks), seed, steps, settings)

    @property
    def masks(self) -> list[str]:
        """One, or those of a shared training."""
        return self.mask.split()

    @property
    def way(self) -> str:
        """Of a training of its own."""
        return way_of(self.mask, self.settings)

    @property
    def ways(self) -> list[str]:
        """One, or those of a shared training."""
        return [way_of(mask, self.settings) for mask in self.masks]


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


def same_layers(way: str, ways: Sequence[str], n_layers: int) -> str | None:
    """The one of some ways that is the same training, if there is one: "none" is "bits:0000"."""
    wanted = identity_of(way, n_layers)
    return next((other for other in ways if identity_of(other, n_layers) == wanted), None)


def file_name(way: str) -> str:
    """A way as a part of a path: "bits:0011" is "bits-0011"."""
    return way.replace(":", "-").replace(",", "+").replace(" ", "_")
