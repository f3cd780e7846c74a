"""One training of a search, as strategies plan it and the storage records it."""

from collections.abc import Sequence
from dataclasses import dataclass

from .ways import mask_of, way_of, written_settings


@dataclass(frozen=True, order=True)
class Training:
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
    def of(cls, way: str, seed: int, steps: int) -> "Training":
        """The training of one way."""
        return cls(mask_of(way), seed, steps, written_settings(way))

    @classmethod
    def shared(cls, masks: Sequence[str], seed: int, steps: int, settings: str = "") -> "Training":
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
