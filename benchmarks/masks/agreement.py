"""The agreement of a predictor's ranking of masks with a full search."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from scipy.stats import kendalltau, spearmanr  # type: ignore[import-untyped]

from spacy_lsbillm.errors import SettingError
from spacy_lsbillm.search.prediction import Prediction, finite

FIRST = 3


@dataclass(frozen=True)
class Agreement:
    """A ranking of masks compared with the scores of a full search.

    spearman (float | None), kendall (float | None): Rank correlations (Kendall's tau-b), from -1 to 1; None if one side
    ranks all masks equally.
    regret_first (float): The score of the best mask minus that of the predictor's first choice.
    regret_best_of_three (float): The score of the best mask minus the best among the predictor's first three, which a
        search would find by training these three.
    share (float): The share of the full search's steps that the prediction took.
    """

    spearman: float | None
    kendall: float | None
    regret_first: float
    regret_best_of_three: float
    share: float


def agreement(prediction: Prediction, grid: Mapping[str, float], grid_steps: int) -> Agreement:
    """Compare a prediction with a full search.

    grid (Mapping[str, float]): The score of each mask after a full training, as a mean over seeds.
    grid_steps (int): The number of steps of the full search.
    RAISES (SettingError): The prediction and the search have different masks.
    """
    if set(grid) != set(prediction.scores):
        differing = sorted(set(grid) ^ set(prediction.scores))
        raise SettingError(f"the prediction and the search are about different masks; only one has {differing[0]!r}.")
    masks = list(grid)
    truth, guess = [grid[mask] for mask in masks], [finite(prediction.scores[mask]) for mask in masks]
    constant = len(set(truth)) == 1 or len(set(guess)) == 1
    rank = prediction.ranking
    best = max(truth)
    return Agreement(
        None if constant else _number(spearmanr(truth, guess).statistic),
        None if constant else _number(kendalltau(truth, guess).statistic),
        best - grid[rank[0]],
        best - max(grid[mask] for mask in rank[:FIRST]),
        prediction.steps / grid_steps,
    )


def _number(value: Any) -> float | None:
    return float(value) if isfinite(value) else None
