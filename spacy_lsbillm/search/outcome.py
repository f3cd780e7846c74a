"""The result of a search: scores per way and length of training, and what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np

from .extension import Extension
from .pareto import Point
from .price import Cost
from .significance import Difference
from .strategies import Results, Shared
from .study import TrainingResult
from .training import Training


@dataclass(frozen=True)
class Row:
    """The scores of a way at one length of training.

    way (str), steps (int): The way, and the length.
    scores (list[float]): The scores on the development set, one per seed.
    seconds (float): The time of all its trainings together.
    curves (list[list[tuple[int, float]]]): The learning curves as pairs of step and score, one per seed.
    """

    way: str
    steps: int
    scores: list[float]
    seconds: float
    curves: list[list[tuple[int, float]]]

    @property
    def mean(self) -> float:
        """The mean of the scores over seeds."""
        return mean(self.scores)

    @property
    def spread(self) -> float:
        """The standard deviation over seeds; 0 with one seed."""
        return stdev(self.scores) if len(self.scores) > 1 else 0.0


@dataclass(frozen=True)
class ScoresOnTest:
    """The scores of a way on the test set.

    way (str): The way.
    scores (list[float]): The scores, one per seed.
    counts (ndarray | None): True positives, false positives and false negatives, shape (seeds, documents, 3); None if
        the score has no such counts.
    """

    way: str
    scores: list[float]
    counts: np.ndarray | None


@dataclass(frozen=True)
class Spending:
    """What a search cost, in trainings of the causal model.

    costs (dict[str, Cost]): The cost of each way.
    spent (float): The cost of all trainings in the storage.
    budget (float | None): The limit; None if there was none.
    complete (bool): Whether the strategy finished within the limit.
    """

    costs: dict[str, Cost]
    spent: float
    budget: float | None = None
    complete: bool = True


@dataclass(frozen=True)
class Outcome:
    """The result of a finished search.

    chosen (str): The way that was chosen on the development set.
    rows (list[Row]): The ways that had a training of their own, at each length.
    shared (list[Row]): All ways with their scores in the shared trainings; empty if there were none.
    steps (int): The steps of all trainings that led to the choice, including those of a prediction.
    grid_steps (int): The steps of the full grid over all ways that were considered, with the same seeds.
    tested (list[ScoresOnTest]): The chosen way, "none" and "all" on the test set; empty without one.
    differences (dict): The difference between the chosen way and each of the others on the test set.
    extension (Extension | None): The test on the development set whether it helps to unmask more layers towards the
        output. None unless all masks were trained in full and there are enough pairs.
    spending (Spending | None): The costs; None if prices were not asked for.
    """

    chosen: str
    rows: list[Row]
    shared: list[Row]
    steps: int
    grid_steps: int
    tested: list[ScoresOnTest]
    differences: dict[str, Difference]
    extension: Extension | None = None
    spending: Spending | None = None

    @property
    def points(self) -> list[Point]:
        """The cost and the score of each way that was trained in full; empty if prices were not asked for."""
        if self.spending is None:
            return []
        longest = max(row.steps for row in self.rows)
        costs = self.spending.costs
        return [
            Point(row.way, costs[row.way].prediction, row.mean, len(row.scores))
            for row in self.rows
            if row.steps == longest and row.way in costs
        ]


def scores_of(results: dict[Training, TrainingResult]) -> Results:
    """The scores of finished trainings, in the form that strategies take."""
    return {training: finished.by_way for training, finished in results.items()}


def shared_rows(
    results: dict[Training, TrainingResult], ways: Sequence[str], seeds: Sequence[int], steps: int
) -> list[Row]:
    """The scores of all ways in the shared trainings; empty if these were not run.

    The seconds in each row are those of all shared trainings together.
    """
    strategy = Shared(ways, seeds, steps)
    if len(ways) < 2 or any(training not in results for training in strategy.trainings):
        return []
    seconds = sum(results[training].record["seconds"] for training in strategy.trainings)
    scores = scores_of(results)
    return [Row(way, steps, strategy.scores(way, scores), seconds, []) for way in ways]


def rows_of(results: dict[Training, TrainingResult], ways: Sequence[str], seeds: Sequence[int]) -> list[Row]:
    """The rows of a search, longest trainings first.

    ways (Sequence[str]): The ways in the order of the rows; other ways in the storage follow.
    """
    rows = []
    own = [training for training in results if len(training.masks) == 1]
    lengths = sorted({training.steps for training in own}, reverse=True)
    order = [*ways, *sorted({training.way for training in own} - set(ways))]
    for steps in lengths:
        for way in order:
            trained = [results[training] for seed in seeds if (training := Training.of(way, seed, steps)) in results]
            if trained:
                rows.append(
                    Row(
                        way,
                        steps,
                        [result.score for result in trained],
                        sum(result.record["seconds"] for result in trained),
                        [result.record["curve"] for result in trained],
                    )
                )
    return rows
