"""One training of a search, as strategies plan it and the storage records it."""

from collections.abc import Sequence
from dataclasses import dataclass

from .ways import mask_of, settings_text, way_of


@dataclass(frozen=True, order=True)
class Training:
    """One training of a search: a way, a seed and a number of steps.

    mask (str): A mask in mask notation. Several masks with spaces between them make a shared training, in which the
        mask changes from step to step, and which gives each of them a score.
    seed (int): The seed.
    steps (int): The number of steps.
    settings (str): The settings in which it differs from the config, as written in a way; "" for none, and in storages
        from versions that varied masks only.
    """

    mask: str
    seed: int
    steps: int
    settings: str = ""

    @classmethod
    def of(cls, way: str, seed: int, steps: int) -> "Training":
        """The training of a single way with one seed."""
        return cls(mask_of(way), seed, steps, settings_text(way))

    @classmethod
    def shared(cls, masks: Sequence[str], seed: int, steps: int, settings: str = "") -> "Training":
        """One training under several masks."""
        return cls(" ".join(masks), seed, steps, settings)

    @property
    def masks(self) -> list[str]:
        """The mask, or the masks of a shared training."""
        return self.mask.split()

    @property
    def way(self) -> str:
        """The way of a training that is not shared."""
        return way_of(self.mask, self.settings)

    @property
    def ways(self) -> list[str]:
        """The way, or the ways of a shared training."""
        return [way_of(mask, self.settings) for mask in self.masks]
