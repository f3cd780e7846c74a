"""What a search has found: scores per way and length of training, and what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np

from .extension import Extension
from .pareto import Point
from .price import Cost
from .significance import Difference
from .strategies import Results, Shared
from .study import Finished
from .training import Training


@dataclass(frozen=True)
class Row:
    """A way's scores at one length of training.

    way (str), steps (int): Which.
    scores (list[float]): One a seed, on the development set.
    seconds (float): Of all its trainings.
    curves (list[list[tuple[int, float]]]): One a seed: step and score.
    """

    way: str
    steps: int
    scores: list[float]
    seconds: float
    curves: list[list[tuple[int, float]]]

    @property
    def mean(self) -> float:
        """Over seeds."""
        return mean(self.scores)

    @property
    def spread(self) -> float:
        """The standard deviation over seeds; 0 with one."""
        return stdev(self.scores) if len(self.scores) > 1 else 0.0


@dataclass(frozen=True)
class Tested:
    """What the test set says of a way.

    way (str): Which.
    scores (list[float]): One a seed.
    counts (ndarray | None): True and false positives and false negatives, shape (seeds, documents, 3).
    """

    way: str
    scores: list[float]
    counts: np.ndarray | None


@dataclass(frozen=True)
class Spending:
    """What a search cost, in trainings of the causal model.

    costs (dict[str, Cost]): Of each way.
    spent (float): By all that its storage holds.
    budget (float | None): What it was allowed; None: there was no limit.
    complete (bool): Whether the strategy came to its end.
    """

    costs: dict[str, Cost]
    spent: float
    budget: float | None = None
    complete: bool = True


@dataclass(frozen=True)
class Outcome:
    """A finished search.

    chosen (str): The way that the development set chose.
    rows (list[Row]): All ways that had a training of their own, at each length.
    shared (list[Row]): All ways as the shared trainings score them; empty where there were none.
    steps (int): Of the trainings by which the way was chosen, together, those of a prediction counted.
    grid_steps (int): Of the full grid over all ways that were considered, with the same seeds.
    tested (list[Tested]): The chosen way, "none" and "all"; empty without a test set.
    differences (dict): Of the chosen way to each of the others, on the test set.
    extension (Extension | None): Of the masks that were trained in full, on the development set: whether it helps to
        unmask more towards the output; None where only some were, or no pairs could tell.
    spending (Spending | None): None where prices were not asked for.
    """

    chosen: str
    rows: list[Row]
    shared: list[Row]
    steps: int
    grid_steps: int
    tested: list[Tested]
    differences: dict[str, Difference]
    extension: Extension | None = None
    spending: Spending | None = None

    @property
    def points(self) -> list[Point]:
        """The ways that were trained in full, between cost and score; empty where prices were not asked for."""
        if self.spending is None:
            return []
        longest = max(row.steps for row in self.rows)
        costs = self.spending.costs
        return [
            Point(row.way, costs[row.way].prediction, row.mean, len(row.scores))
            for row in self.rows
            if row.steps == longest and row.way in costs
        ]


def scores_of(results: dict[Training, Finished]) -> Results:
    """As strategies see them."""
    return {training: finished.by_way for training, finished in results.items()}


def shared_rows(results: dict[Training, Finished], ways: Sequence[str], seeds: Sequence[int], steps: int) -> list[Row]:
    """The table of the shared trainings of all ways; empty where they were not done. Seconds are those of all
    together."""
    plan = Shared(ways, seeds, steps)
    if len(ways) < 2 or any(training not in results for training in plan.trainings):
        return []
    seconds = sum(results[training].record["seconds"] for training in plan.trainings)
    scores = scores_of(results)
    return [Row(way, steps, plan.scores(way, scores), seconds, []) for way in ways]


def rows_of(results: dict[Training, Finished], ways: Sequence[str], seeds: Sequence[int]) -> list[Row]:
    """The table of a search, longest trainings first.

    ways (Sequence[str]): In this order; others that the storage holds follow.
    """
    rows = []
    own = [training for training in results if len(training.masks) == 1]
    lengths = sorted({training.steps for training in own}, reverse=True)
    order = [*ways, *sorted({training.way for training in own} - set(ways))]
    for steps in lengths:
        for way in order:
            found = [results[training] for seed in seeds if (training := Training.of(way, seed, steps)) in results]
            if found:
                rows.append(
                    Row(
                        way,
                        steps,
                        [one.score for one in found],
                        sum(one.record["seconds"] for one in found),
                        [one.record["curve"] for one in found],
                    )
                )
    return rows
