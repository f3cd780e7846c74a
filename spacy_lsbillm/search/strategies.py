"""Which trainings to run next, given the scores of the finished ones.

Strategies hold no state: a search that was killed, or that several processes share, continues from the results alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Protocol

from ..errors import SettingError
from ..values import check_choice
from .training import Training
from .ways import mask_of, shared_settings, way_of

# For each finished training the score of its way, or of each of its ways.
Results = Mapping[Training, Mapping[str, float]]


class Strategy(Protocol):
    """What a strategy of a search can do."""

    def stage(self, results: Results) -> list[Training]:
        """All trainings of the first stage that is not finished; empty once there is nothing left to do."""

    def best(self, results: Results) -> str:
        """The best way. Call it only once nothing is left to do."""

    @property
    def n_trainings(self) -> int:
        """The maximum number of trainings."""

    def minimum_price(self, price: Callable[[Training], float]) -> float:
        """The lowest price of trainings after which the strategy can choose anything.

        price (Callable): Gives the price of a training.
        """


def mean_score(way: str, steps: int, seeds: Sequence[int], results: Results) -> float:
    """The mean score of a way over seeds."""
    return mean(results[Training.of(way, seed, steps)][way] for seed in seeds)


def best_so_far(ways: Sequence[str], steps: int, seeds: Sequence[int], results: Results) -> str | None:
    """The best way if a strategy did not finish.

    Ways that were trained in full with some seed are compared by the seeds that all of them have; if there are none,
    each by the mean of its own seeds. Of equal ways the first is taken.

    RETURNS (str | None): The way; None if nothing was trained in full.
    """
    trained = {way: {seed for seed in seeds if Training.of(way, seed, steps) in results} for way in ways}
    trained = {way: own for way, own in trained.items() if own}
    if not trained:
        return None
    common = set.intersection(*trained.values())
    return max(trained, key=lambda way: mean_score(way, steps, sorted(common or trained[way]), results))


def trainings_of(strategy: Strategy, results: Results) -> list[Training]:
    """The trainings that a strategy has asked for so far. A storage may also hold trainings of other strategies."""
    seen: dict[Training, Mapping[str, float]] = {}
    while stage := strategy.stage(seen):
        if any(training not in results for training in stage):
            return [*seen, *stage]
        seen |= {training: results[training] for training in stage}
    return list(seen)


@dataclass(frozen=True)
class Grid:
    """Every way with every seed, trained in full: the protocol of Dukić and Šnajder (2024).

    ways (Sequence[str]): The ways, in the order of the table.
    seeds (Sequence[int]), steps (int): The seeds, and the steps of each training.
    """

    ways: Sequence[str]
    seeds: Sequence[int]
    steps: int

    def stage(self, results: Results) -> list[Training]:
        """One stage with all trainings, ordered by seed, so that there is soon a first score for every way."""
        trainings = [Training.of(way, seed, self.steps) for seed in self.seeds for way in self.ways]
        return trainings if any(training not in results for training in trainings) else []

    def best(self, results: Results) -> str:
        """The way with the highest mean; of equal ones the first."""
        return max(self.ways, key=lambda way: mean_score(way, self.steps, self.seeds, results))

    @property
    def n_trainings(self) -> int:
        """The number of trainings: one per way and seed."""
        return len(self.ways) * len(self.seeds)

    def minimum_price(self, price: Callable[[Training], float]) -> float:
        """The price of one training of the cheapest way."""
        return min(price(Training.of(way, self.seeds[0], self.steps)) for way in self.ways)


@dataclass(frozen=True)
class Shared:
    """One training per seed for all masks.

    The mask changes from step to step, and then every mask is scored on the weights that were trained under all of
    them. The idea is that of one-shot architecture search (Bender et al., 2018, "Understanding and Simplifying One-Shot
    Architecture Search"; Guo et al., 2020). Ways that differ in more than their mask share trainings with the ways that
    have the same settings.

    ways (Sequence[str]), seeds (Sequence[int]), steps (int): As in a grid.
    """

    ways: Sequence[str]
    seeds: Sequence[int]
    steps: int

    @property
    def masks(self) -> dict[str, list[str]]:
        """The masks of each training, by the settings."""
        by_settings: dict[str, list[str]] = {}
        for way in self.ways:
            masks = by_settings.setdefault(shared_settings(way), [])
            if mask_of(way) not in masks:
                masks.append(mask_of(way))
        return by_settings

    @property
    def trainings(self) -> list[Training]:
        """The number of trainings: one per seed and settings."""
        shared = self.masks.items()
        return [Training.shared(masks, seed, self.steps, settings) for seed in self.seeds for settings, masks in shared]

    def scores(self, way: str, results: Results) -> list[float]:
        """The scores of a way, one per seed."""
        settings = shared_settings(way)
        masks, trained = self.masks[settings], way_of(mask_of(way), settings)
        return [results[Training.shared(masks, seed, self.steps, settings)][trained] for seed in self.seeds]

    def stage(self, results: Results) -> list[Training]:
        """All trainings, as a single stage, until they are finished."""
        return self.trainings if any(training not in results for training in self.trainings) else []

    def ranking(self, results: Results) -> list[str]:
        """The ways, best first; equal ones in their given order."""
        return sorted(self.ways, key=lambda way: -mean(self.scores(way, results)))

    def best(self, results: Results) -> str:
        """The best way, which is the first one of the ranking."""
        return self.ranking(results)[0]

    @property
    def n_trainings(self) -> int:
        """One training per seed and settings."""
        return len(self.trainings)

    def minimum_price(self, price: Callable[[Training], float]) -> float:
        """The price of all trainings: without one of them the ranking is incomplete."""
        return sum(map(price, self.trainings))


@dataclass(frozen=True)
class Halving:
    """Successive halving (Jamieson and Talwalkar, 2016): all ways get a little training, and the best of them more.

    A way first gets its part of the shared trainings, then a training of its own with the first seed, then one with
    each seed. With 16 masks and three seeds these stages have 16, 6 and 3 masks, and take 31% of the grid's steps.

    If ways differ in the cost of prediction, two more are kept: the best of those that cost at most half as much as the
    first one, and the best of those that cost no more than the causal model. So the search can recommend a way at these
    costs, too.

    The usual first stage, short trainings, ranks masks differently from trainings in full (docs/search.md has figures).

    ways (Sequence[str]), seeds (Sequence[int]), steps (int): As in a grid.
    costs (Mapping[str, float]): The cost of prediction by each way, relative to the causal model; empty if all cost the
        same.
    """

    ways: Sequence[str]
    seeds: Sequence[int]
    steps: int
    costs: Mapping[str, float] = field(default_factory=dict)

    def stage(self, results: Results) -> list[Training]:
        """The trainings of the first stage that is not finished."""
        shared = self._shared.stage(results)
        if shared:
            return shared
        first = [Training.of(way, self.seeds[0], self.steps) for way in self._second(results)]
        if any(training not in results for training in first):
            return first
        rest = [Training.of(way, seed, self.steps) for seed in self.seeds[1:] for way in self._third(results)]
        return rest if any(training not in results for training in rest) else []

    def best(self, results: Results) -> str:
        """The best way of the last stage, by its mean score over seeds."""
        return max(self._third(results), key=lambda way: mean_score(way, self.steps, self.seeds, results))

    @property
    def n_trainings(self) -> int:
        """The maximum number of trainings, over all stages."""
        second, third = (min(kept + (2 if self.costs else 0), len(self.ways)) for kept in self._kept)
        return self._shared.n_trainings + second + third * (len(self.seeds) - 1)

    def minimum_price(self, price: Callable[[Training], float]) -> float:
        """The price of the shared trainings and of one more, which may be of the most expensive way."""
        dearest = max(price(Training.of(way, self.seeds[0], self.steps)) for way in self.ways)
        return self._shared.minimum_price(price) + dearest

    @property
    def _shared(self) -> Shared:
        return Shared(self.ways, self.seeds, self.steps)

    @property
    def _kept(self) -> tuple[int, int]:
        """How many ways are in the second and in the third stage, not counting those that are kept for their cost."""
        second, third = (max(2, -(-3 * len(self.ways) // parts)) for parts in (8, 16))
        return min(second, len(self.ways)), min(third, len(self.ways))

    def _second(self, results: Results) -> list[str]:
        return self._first_of(self._shared.ranking(results), self._kept[0])

    def _third(self, results: Results) -> list[str]:
        """The ways of the third stage, best first by the first seed."""
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
    """Greedy search from the output side.

    It begins with all layers causal, unmasks one group after the other, the one next to the output first, and keeps
    each that helps.

    n_groups (int): The number of groups, which are of equal size.
    seeds (Sequence[int]), steps (int): The seeds, and the steps of each training.
    """

    n_groups: int
    seeds: Sequence[int]
    steps: int

    def stage(self, results: Results) -> list[Training]:
        """The trainings of the mask to compare next."""
        _, trainings = self._walk(results)
        return trainings

    def best(self, results: Results) -> str:
        """The mask of the groups that were kept."""
        best, _ = self._walk(results)
        return best

    def _walk(self, results: Results) -> tuple[str, list[Training]]:
        bits = ["0"] * self.n_groups
        best = "bits:" + "".join(bits)
        trainings = self._trainings(best)
        if any(training not in results for training in trainings):
            return best, trainings
        for group in reversed(range(self.n_groups)):
            tried = "bits:" + "".join([*bits[:group], "1", *bits[group + 1 :]])
            trainings = self._trainings(tried)
            if any(training not in results for training in trainings):
                return best, trainings
            if mean_score(tried, self.steps, self.seeds, results) > mean_score(best, self.steps, self.seeds, results):
                bits[group], best = "1", tried
        return best, []

    def _trainings(self, mask: str) -> list[Training]:
        return [Training(mask, seed, self.steps) for seed in self.seeds]

    @property
    def n_trainings(self) -> int:
        """The trainings of one mask more than there are groups."""
        return (self.n_groups + 1) * len(self.seeds)

    def minimum_price(self, price: Callable[[Training], float]) -> float:
        """The price of one training of the first mask."""
        return price(self.stage({})[0])


@dataclass(frozen=True)
class Plan:
    """What a strategy can be created from.

    ways (Sequence[str]), seeds (Sequence[int]), steps (int): As in a grid.
    groups (Sequence[int]): The numbers of groups of layers, from whose masks the ways were made.
    costs (Mapping[str, float]): The cost of prediction by each way, relative to the causal model.
    """

    ways: Sequence[str]
    seeds: Sequence[int]
    steps: int
    groups: Sequence[int]
    costs: Mapping[str, float]


def _grid(plan: Plan) -> Strategy:
    return Grid(plan.ways, plan.seeds, plan.steps)


def _halving(plan: Plan) -> Strategy:
    return Halving(plan.ways, plan.seeds, plan.steps, plan.costs if len(set(plan.costs.values())) > 1 else {})


def _greedy(plan: Plan) -> Strategy:
    if len(plan.groups) != 1:
        raise SettingError(f"--strategy greedy takes one number of groups, not {list(plan.groups)}.")
    return Greedy(plan.groups[0], plan.seeds, plan.steps)


# By the names that `--strategy` takes.
STRATEGIES: dict[str, Callable[[Plan], Strategy]] = {"grid": _grid, "halving": _halving, "greedy": _greedy}


def create_strategy(name: str, plan: Plan) -> Strategy:
    """Create a strategy by its name.

    RAISES (SettingError): There is no strategy of this name, or the plan does not fit it.
    """
    check_choice("strategy", name, STRATEGIES)
    return STRATEGIES[name](plan)
