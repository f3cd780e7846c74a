"""A ranking of masks without the full search, and how well it agrees with one."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from scipy.stats import kendalltau, spearmanr  # type: ignore[import-untyped]

from ..errors import SettingError
from ..files import write_text

FIRST = 3


@dataclass(frozen=True)
class Prediction:
    """What a predictor says.

    predictor (str): Its name.
    scores (dict[str, float]): Of each mask; the highest is thought to be best. In the order of the masks.
    steps (int): Steps of the optimizer that it took, of all its trainings together.
    seconds (float): That it took.
    by_seed (dict[str, list[float]]): The scores that `scores` are the means of, where there are several seeds.
    """

    predictor: str
    scores: dict[str, float]
    steps: int
    seconds: float
    by_seed: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ranking(self) -> list[str]:
        """The masks, best first; of equal ones the first. One whose score is no number, such as the loss of a training
        that has gone astray, is last."""
        return sorted(self.scores, key=lambda mask: -_known(self.scores[mask]))


@dataclass(frozen=True)
class Agreement:
    """A ranking against the scores of a full search.

    spearman (float | None), kendall (float | None): Rank correlations (Kendall's tau-b), from -1 to 1; None where one
        side ranks all masks alike.
    regret_first (float): The score of the best mask less that of the predictor's first choice.
    regret_best_of_three (float): The same for the best of its first three, which a search would find out by training
        those.
    share (float): Of the full search's steps.
    """

    spearman: float | None
    kendall: float | None
    regret_first: float
    regret_best_of_three: float
    share: float


def agreement(prediction: Prediction, grid: Mapping[str, float], grid_steps: int) -> Agreement:
    """Compare a prediction with a full search.

    grid (Mapping[str, float]): The score of each mask after training in full, a mean over seeds.
    grid_steps (int): All steps of the full search.
    RAISES (SettingError): They are about different masks.
    """
    if set(grid) != set(prediction.scores):
        differing = sorted(set(grid) ^ set(prediction.scores))
        raise SettingError(f"the prediction and the search are about different masks; only one has {differing[0]!r}.")
    masks = list(grid)
    truth, guess = [grid[mask] for mask in masks], [_known(prediction.scores[mask]) for mask in masks]
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


def _known(score: float) -> float:
    return score if isfinite(score) else -inf


def _number(value: Any) -> float | None:
    return float(value) if isfinite(value) else None


def kept(paths: Mapping[Path, Callable[[], dict[str, Any]]]) -> list[dict[str, Any]]:
    """Results in JSON files: those that are there are read, the others are made. Several processes may share the work,
    and one that is killed loses what it was making.

    paths (Mapping): Each file, and what makes it.
    """
    # First what nobody else is at, then the rest, once others are done with it.
    for wait in (False, True):
        for path, make in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(Timeout), FileLock(path.with_suffix(".lock"), blocking=wait):
                if not path.exists():
                    write_text(path, json.dumps(make(), indent=1) + "\n")
    return [json.loads(path.read_text(encoding="utf8")) for path in paths]
