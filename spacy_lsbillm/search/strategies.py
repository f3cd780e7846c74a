"""Which trainings to do next, given what the finished ones scored. Strategies hold no state: a search that was killed,
or that several processes share, goes on from the results alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Protocol

from .space import Cell

# Of each finished training the score of its mask, or of each of its masks.
Results = Mapping[Cell, Mapping[str, float]]


class Strategy(Protocol):
    """A strategy of a search."""

    def stage(self, results: Results) -> list[Cell]:
        """All trainings of the first stage that is not finished; empty once there is nothing left to do."""

    def chosen(self, results: Results) -> str:
        """The best mask. Only once nothing is left to do."""

    @property
    def trials(self) -> int:
        """How many trainings there will be, at most."""


def mean_score(mask: str, steps: int, seeds: Sequence[int], results: Results) -> float:
    """Over the seeds."""
    return mean(results[Cell(mask, seed, steps)][mask] for seed in seeds)


def cells_of(strategy: Strategy, results: Results) -> list[Cell]:
    """The trainings that a strategy has asked for so far. A storage may hold others, of another strategy."""
    seen: dict[Cell, Mapping[str, float]] = {}
    while stage := strategy.stage(seen):
        if any(cell not in results for cell in stage):
            return [*seen, *stage]
        seen |= {cell: results[cell] for cell in stage}
    return list(seen)


@dataclass(frozen=True)
class Grid:
    """Every mask with every seed, in full: the protocol of Dukić and Šnajder (2024).

    masks (Sequence[str]): In the order of the table.
    seeds (Sequence[int]), steps (int): Of each.
    """

    masks: Sequence[str]
    seeds: Sequence[int]
    steps: int

    def stage(self, results: Results) -> list[Cell]:
        """One stage, seed by seed: a first picture of all masks is there early."""
        cells = [Cell(mask, seed, self.steps) for seed in self.seeds for mask in self.masks]
        return cells if any(cell not in results for cell in cells) else []

    def chosen(self, results: Results) -> str:
        """The mask with the highest mean; of equal ones the first."""
        return max(self.masks, key=lambda mask: mean_score(mask, self.steps, self.seeds, results))

    @property
    def trials(self) -> int:
        """All."""
        return len(self.masks) * len(self.seeds)


@dataclass(frozen=True)
class Shared:
    """One training a seed for all masks: the mask changes from step to step, and every mask is then scored on the
    weights that have seen them all. The idea is that of one-shot architecture search (Bender et al., 2018,
    "Understanding and Simplifying One-Shot Architecture Search"; Guo et al., 2020).

    masks (Sequence[str]), seeds (Sequence[int]), steps (int): As in a grid.
    """

    masks: Sequence[str]
    seeds: Sequence[int]
    steps: int

    @property
    def cells(self) -> list[Cell]:
        """One a seed."""
        return [Cell.shared(self.masks, seed, self.steps) for seed in self.seeds]

    def stage(self, results: Results) -> list[Cell]:
        """One stage."""
        return self.cells if any(cell not in results for cell in self.cells) else []

    def ranking(self, results: Results) -> list[str]:
        """The masks, best first; of equal ones the first."""
        return sorted(self.masks, key=lambda mask: -mean(results[cell][mask] for cell in self.cells))

    def chosen(self, results: Results) -> str:
        """The first."""
        return self.ranking(results)[0]

    @property
    def trials(self) -> int:
        """One a seed."""
        return len(self.seeds)


@dataclass(frozen=True)
class Halving:
    """Successive halving (Jamieson and Talwalkar, 2016): all masks on little, the best of them on more. What a mask
    gets is at first its part of the trainings that all share, then a training of its own with the first seed, then one
    with each seed. With 16 masks and three seeds these are 16, 6 and 3 masks, and 31% of the grid's steps.

    The usual first stage, short trainings, ranks masks otherwise than trainings in full do (docs/search.md has
    figures).

    masks (Sequence[str]), seeds (Sequence[int]), steps (int): As in a grid.
    """

    masks: Sequence[str]
    seeds: Sequence[int]
    steps: int

    def stage(self, results: Results) -> list[Cell]:
        """The stage that is not finished."""
        shared = self._shared.stage(results)
        if shared:
            return shared
        first = [Cell(mask, self.seeds[0], self.steps) for mask in self._second(results)]
        if any(cell not in results for cell in first):
            return first
        rest = [Cell(mask, seed, self.steps) for seed in self.seeds[1:] for mask in self._third(results)]
        return rest if any(cell not in results for cell in rest) else []

    def chosen(self, results: Results) -> str:
        """The best of the last stage."""
        return max(self._third(results), key=lambda mask: mean_score(mask, self.steps, self.seeds, results))

    @property
    def trials(self) -> int:
        """Of all stages."""
        second, third = self._kept
        return self._shared.trials + second + third * (len(self.seeds) - 1)

    @property
    def _shared(self) -> Shared:
        return Shared(self.masks, self.seeds, self.steps)

    @property
    def _kept(self) -> tuple[int, int]:
        """How many masks are in the second and in the third stage."""
        second, third = (max(2, -(-3 * len(self.masks) // parts)) for parts in (8, 16))
        return min(second, len(self.masks)), min(third, len(self.masks))

    def _second(self, results: Results) -> list[str]:
        return self._shared.ranking(results)[: self._kept[0]]

    def _third(self, results: Results) -> list[str]:
        """Best first by the first seed."""
        masks = self._second(results)
        return sorted(masks, key=lambda mask: -mean_score(mask, self.steps, self.seeds[:1], results))[: self._kept[1]]


@dataclass(frozen=True)
class Greedy:
    """From the output side: begin with all layers causal, unmask one group after the other, the one next to the output
    first, and keep each that helps.

    n_groups (int): Of equal size.
    seeds (Sequence[int]), steps (int): Of each training.
    """

    n_groups: int
    seeds: Sequence[int]
    steps: int

    def stage(self, results: Results) -> list[Cell]:
        """The mask that is to be compared next."""
        _, cells = self._walk(results)
        return cells

    def chosen(self, results: Results) -> str:
        """What was kept."""
        best, _ = self._walk(results)
        return best

    def _walk(self, results: Results) -> tuple[str, list[Cell]]:
        bits = ["0"] * self.n_groups
        best = "bits:" + "".join(bits)
        cells = self._cells(best)
        if any(cell not in results for cell in cells):
            return best, cells
        for group in reversed(range(self.n_groups)):
            tried = "bits:" + "".join([*bits[:group], "1", *bits[group + 1 :]])
            cells = self._cells(tried)
            if any(cell not in results for cell in cells):
                return best, cells
            if mean_score(tried, self.steps, self.seeds, results) > mean_score(best, self.steps, self.seeds, results):
                bits[group], best = "1", tried
        return best, []

    def _cells(self, mask: str) -> list[Cell]:
        return [Cell(mask, seed, self.steps) for seed in self.seeds]

    @property
    def trials(self) -> int:
        """One mask more than there are groups."""
        return (self.n_groups + 1) * len(self.seeds)
