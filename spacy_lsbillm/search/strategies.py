"""Which trainings to do next, given what the finished ones scored. Strategies hold no state: a search that was killed,
or that several processes share, goes on from the results alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Protocol

from .training import Training
from .ways import mask_of, shared_settings, way_of

# Of each finished training the score of its way, or of each of its ways.
Results = Mapping[Training, Mapping[str, float]]


class Strategy(Protocol):
    """A strategy of a search."""

    def stage(self, results: Results) -> list[Training]:
        """All trainings of the first stage that is not finished; empty once there is nothing left to do."""

    def chosen(self, results: Results) -> str:
        """The best way. Only once nothing is left to do."""

    @property
    def trials(self) -> int:
        """How many trainings there will be, at most."""

    def least(self, price: Callable[[Training], float]) -> float:
        """The least that the strategy needs for trainings before it has anything to choose from."""


def mean_score(way: str, steps: int, seeds: Sequence[int], results: Results) -> float:
    """Over the seeds."""
    return mean(results[Training.of(way, seed, steps)][way] for seed in seeds)


def best_so_far(ways: Sequence[str], steps: int, seeds: Sequence[int], results: Results) -> str | None:
    """The best way where a strategy was not brought to its end: by the seeds that all ways have that were trained in
    full at all, and if there are none by the mean of those that each has; of equal ones the first.

    RETURNS (str | None): None where nothing was trained in full.
    """
    found = {way: {seed for seed in seeds if Training.of(way, seed, steps) in results} for way in ways}
    found = {way: own for way, own in found.items() if own}
    if not found:
        return None
    common = set.intersection(*found.values())
    return max(found, key=lambda way: mean_score(way, steps, sorted(common or found[way]), results))


def trainings_of(strategy: Strategy, results: Results) -> list[Training]:
    """The trainings that a strategy has asked for so far. A storage may hold others, of another strategy."""
    seen: dict[Training, Mapping[str, float]] = {}
    while stage := strategy.stage(seen):
        if any(training not in results for training in stage):
            return [*seen, *stage]
        seen |= {training: results[training] for training in stage}
    return list(seen)


@dataclass(frozen=True)
class Grid:
    """Every way with every seed, in full: the protocol of Dukić and Šnajder (2024).

    ways (Sequence[str]): In the order of the table.
    seeds (Sequence[int]), steps (int): Of each.
    """

    ways: Sequence[str]
    seeds: Sequence[int]
    steps: int

    def stage(self, results: Results) -> list[Training]:
        """One stage, seed by seed: a first picture of all ways is there early."""
        trainings = [Training.of(way, seed, self.steps) for seed in self.seeds for way in self.ways]
        return trainings if any(training not in results for training in trainings) else []

    def chosen(self, results: Results) -> str:
        """The way with the highest mean; of equal ones the first."""
        return max(self.ways, key=lambda way: mean_score(way, self.steps, self.seeds, results))

    @property
    def trials(self) -> int:
        """All."""
        return len(self.ways) * len(self.seeds)

    def least(self, price: Callable[[Training], float]) -> float:
        """One training, of the cheapest way."""
        return min(price(Training.of(way, self.seeds[0], self.steps)) for way in self.ways)


@dataclass(frozen=True)
class Shared:
    """One training a seed for all masks: the mask changes from step to step, and every mask is then scored on the
    weights that have seen them all. The idea is that of one-shot architecture search (Bender et al., 2018,
    "Understanding and Simplifying One-Shot Architecture Search"; Guo et al., 2020). Ways that differ in more than their
    mask share trainings with those that have the same settings.

    ways (Sequence[str]), seeds (Sequence[int]), steps (int): As in a grid.
    """

    ways: Sequence[str]
    seeds: Sequence[int]
    steps: int

    @property
    def masks(self) -> dict[str, list[str]]:
        """Those of each training, by the settings."""
        found: dict[str, list[str]] = {}
        for way in self.ways:
            masks = found.setdefault(shared_settings(way), [])
            if mask_of(way) not in masks:
                masks.append(mask_of(way))
        return found

    @property
    def trainings(self) -> list[Training]:
        """One a seed for each of the settings."""
        shared = self.masks.items()
        return [Training.shared(masks, seed, self.steps, settings) for seed in self.seeds for settings, masks in shared]

    def scores(self, way: str, results: Results) -> list[float]:
        """One a seed."""
        settings = shared_settings(way)
        masks, trained = self.masks[settings], way_of(mask_of(way), settings)
        return [results[Training.shared(masks, seed, self.steps, settings)][trained] for seed in self.seeds]

    def stage(self, results: Results) -> list[Training]:
        """One stage."""
        return self.trainings if any(training not in results for training in self.trainings) else []

    def ranking(self, results: Results) -> list[str]:
        """The ways, best first; of equal ones the first."""
        return sorted(self.ways, key=lambda way: -mean(self.scores(way, results)))

    def chosen(self, results: Results) -> str:
        """The first."""
        return self.ranking(results)[0]

    @property
    def trials(self) -> int:
        """One a seed for each of the settings."""
        return len(self.trainings)

    def least(self, price: Callable[[Training], float]) -> float:
        """All."""
        return sum(map(price, self.trainings))


@dataclass(frozen=True)
class Halving:
    """Successive halving (Jamieson and Talwalkar, 2016): all ways on little, the best of them on more. What a way
    gets is at first its part of the trainings that all masks share, then a training of its own with the first seed,
    then one with each seed. With 16 masks and three seeds these are 16, 6 and 3 masks, and 31% of the grid's steps.

    Where prediction costs differ, the best goes on with them of those that cost half as much as the first or less, and
    of those that cost no more than the causal model: a search is to say what to take at these costs, too.

    The usual first stage, short trainings, ranks masks otherwise than trainings in full do (docs/search.md has
    figures).

    ways (Sequence[str]), seeds (Sequence[int]), steps (int): As in a grid.
    costs (Mapping[str, float]): Of a prediction by each way, relative to the causal model; empty: all the same.
    """

    ways: Sequence[str]
    seeds: Sequence[int]
    steps: int
    costs: Mapping[str, float] = field(default_factory=dict)

    def stage(self, results: Results) -> list[Training]:
        """The stage that is not finished."""
        shared = self._shared.stage(results)
        if shared:
            return shared
        first = [Training.of(way, self.seeds[0], self.steps) for way in self._second(results)]
        if any(training not in results for training in first):
            return first
        rest = [Training.of(way, seed, self.steps) for seed in self.seeds[1:] for way in self._third(results)]
        return rest if any(training not in results for training in rest) else []

    def chosen(self, results: Results) -> str:
        """The best of the last stage."""
        return max(self._third(results), key=lambda way: mean_score(way, self.steps, self.seeds, results))

    @property
    def trials(self) -> int:
        """Of all stages."""
        second, third = (min(kept + (2 if self.costs else 0), len(self.ways)) for kept in self._kept)
        return self._shared.trials + second + third * (len(self.seeds) - 1)

    def least(self, price: Callable[[Training], float]) -> float:
        """The shared trainings and one more, which may be of the dearest way."""
        dearest = max(price(Training.of(way, self.seeds[0], self.steps)) for way in self.ways)
        return self._shared.least(price) + dearest

    @property
    def _shared(self) -> Shared:
        return Shared(self.ways, self.seeds, self.steps)

    @property
    def _kept(self) -> tuple[int, int]:
        """How many ways are in the second and in the third stage, beside those that are there for their cost."""
        second, third = (max(2, -(-3 * len(self.ways) // parts)) for parts in (8, 16))
        return min(second, len(self.ways)), min(third, len(self.ways))

    def _second(self, results: Results) -> list[str]:
        return self._first_of(self._shared.ranking(results), self._kept[0])

    def _third(self, results: Results) -> list[str]:
        """Best first by the first seed."""
        ways = self._second(results)
        ranking = sorted(ways, key=lambda way: -mean_score(way, self.steps, self.seeds[:1], results))
        return self._first_of(ranking, self._kept[1])

    def _first_of(self, ranking: list[str], number: int) -> list[str]:
        kept = ranking[:number]
        if not self.costs:
            return kept
        for limit in (self.costs[ranking[0]] / 2, 1.0):
            best = next((way for way in ranking if self.costs[way] <= limit), None)
            if best is not None and best not in kept:
                kept.append(best)
        return kept


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

    def stage(self, results: Results) -> list[Training]:
        """The mask that is to be compared next."""
        _, trainings = self._walk(results)
        return trainings

    def chosen(self, results: Results) -> str:
        """What was kept."""
        best, _ = self._walk(results)
        return best

    def _walk(self, results: Results) -> tuple[str, list[Training]]:
        bits = ["0"] * self.n_groups
        best = "bits:" + "".join(bits)
        trainings = self._cells(best)
        if any(training not in results for training in trainings):
            return best, trainings
        for group in reversed(range(self.n_groups)):
            tried = "bits:" + "".join([*bits[:group], "1", *bits[group + 1 :]])
            trainings = self._cells(tried)
            if any(training not in results for training in trainings):
                return best, trainings
            if mean_score(tried, self.steps, self.seeds, results) > mean_score(best, self.steps, self.seeds, results):
                bits[group], best = "1", tried
        return best, []

    def _cells(self, mask: str) -> list[Training]:
        return [Training(mask, seed, self.steps) for seed in self.seeds]

    @property
    def trials(self) -> int:
        """One mask more than there are groups."""
        return (self.n_groups + 1) * len(self.seeds)

    def least(self, price: Callable[[Training], float]) -> float:
        """One training of the first mask."""
        return price(self.stage({})[0])
