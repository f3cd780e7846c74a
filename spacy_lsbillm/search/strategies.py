"""Which trainings to do next, given what the finished ones scored. Strategies hold no state: a search that was killed,
or that several processes share, goes on from the results alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Protocol

from ..errors import SettingError
from .space import Cell

Results = Mapping[Cell, float]


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
    return mean(results[Cell(mask, seed, steps)] for seed in seeds)


def cells_of(strategy: Strategy, results: Results) -> list[Cell]:
    """The trainings that a strategy has asked for so far. A storage may hold others, of another strategy."""
    seen: dict[Cell, float] = {}
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
class Rung:
    """A stage of successive halving.

    steps (int): Of each training.
    keep (int): How many masks are in it.
    """

    steps: int
    keep: int


@dataclass(frozen=True)
class Halving:
    """Successive halving (Jamieson and Talwalkar, 2016): all masks with short trainings, the best of them with longer
    ones, the last few in full. Each training is one of its own, with the learning rate's whole schedule in it, so that
    short ones are no broken-off long ones, and a killed one costs no more than itself.

    masks (Sequence[str]), seeds (Sequence[int]): As in a grid.
    rungs (Sequence[Rung]): From the first stage to the last; the first keeps all.
    """

    masks: Sequence[str]
    seeds: Sequence[int]
    rungs: Sequence[Rung]

    def stage(self, results: Results) -> list[Cell]:
        """The rung that is not finished."""
        masks = list(self.masks)
        for rung in self.rungs:
            masks = masks[: rung.keep]
            cells = [Cell(mask, seed, rung.steps) for seed in self.seeds for mask in masks]
            if any(cell not in results for cell in cells):
                return cells
            masks = self._ranked(masks, rung, results)
        return []

    def chosen(self, results: Results) -> str:
        """The best of the last rung."""
        masks = list(self.masks)
        for rung in self.rungs:
            masks = self._ranked(masks[: rung.keep], rung, results)
        return masks[0]

    def _ranked(self, masks: list[str], rung: Rung, results: Results) -> list[str]:
        return sorted(masks, key=lambda mask: -mean_score(mask, rung.steps, self.seeds, results))

    @property
    def trials(self) -> int:
        """Of all rungs."""
        return sum(rung.keep for rung in self.rungs) * len(self.seeds)


def halving_rungs(n_masks: int, steps: int) -> list[Rung]:
    """An eighth of the steps for all masks, a quarter for the best quarter of them, all steps for the best two: 31% of
    the grid's steps with 16 masks.

    RAISES (SettingError): There are too few steps to divide.
    """
    if steps < 8:
        raise SettingError(f"{steps} steps cannot be divided for halving: use at least 8, or the strategy grid.")
    quarter = max(2, -(-n_masks // 4))
    return [Rung(steps // 8, n_masks), Rung(steps // 4, min(quarter, n_masks)), Rung(steps, min(2, n_masks))]


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
