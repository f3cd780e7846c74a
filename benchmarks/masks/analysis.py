"""What the scores of all masks show: whether the choice was right, and whether a cheaper search would have found it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from spacy_lsbillm.search.extension import extension_test
from spacy_lsbillm.search.json_results import extension_as_dict
from spacy_lsbillm.search.on_test import BASELINES
from spacy_lsbillm.search.outcome import ScoresOnTest
from spacy_lsbillm.search.prediction import Prediction
from spacy_lsbillm.search.significance import paired_bootstrap
from spacy_lsbillm.search.ways import find_same_way

from .agreement import agreement

# A difference with a smaller p-value counts as significant.
LEVEL = 0.05


@dataclass(frozen=True)
class Chosen:
    """The choice of a search that is cheaper than the grid.

    mask (str): The mask it chose.
    steps (int): The training steps it took.
    """

    mask: str
    steps: int


def analyse(
    dev: Mapping[str, Sequence[float]],
    tested: Mapping[str, ScoresOnTest],
    cheaper: Mapping[str, Chosen],
    predictions: Sequence[Prediction],
    n_layers: int,
    steps: int,
) -> dict[str, Any]:
    """Make all comparisons.

    dev (Mapping): The scores of each mask on the development set, one per seed.
    tested (Mapping): The scores of each mask on the test set.
    cheaper (Mapping): The choice of each cheaper strategy, made from the same trainings.
    steps (int): The number of steps of a full training.
    """
    grid_steps = steps * sum(map(len, dev.values()))
    on_dev = {mask: mean(scores) for mask, scores in dev.items()}
    on_test = {mask: mean(one.scores) for mask, one in tested.items()}
    best = max(on_dev, key=lambda mask: on_dev[mask])
    best_on_test = max(on_test, key=lambda mask: on_test[mask])
    error = stdev(dev[best]) / len(dev[best]) ** 0.5 if len(dev[best]) > 1 else 0.0
    # The development set as a predictor of the test set: it uses the same trainings, so it costs the whole grid.
    carried = agreement(Prediction("dev", on_dev, grid_steps, 0.0), on_test, grid_steps)
    baselines = [find_same_way(name, list(dev), n_layers) for name in BASELINES]
    return {
        "grid": {
            "chosen": best,
            "dev": on_dev[best],
            "test": on_test[best],
            "steps": grid_steps,
            "standard_error_on_dev": error,
            "best_on_test": best_on_test,
            "regret_on_test": on_test[best_on_test] - on_test[best],
            "rank_on_test": 1 + sum(score > on_test[best] for score in on_test.values()),
            "dev_to_test": vars(carried),
            "to_best_on_test": _difference(tested, best_on_test, best),
            "to": {mask: _difference(tested, best, mask) for mask in baselines if mask not in (None, best)},
        },
        "cheaper": {
            name: _beside_the_grid(one, best, error, on_dev, on_test, tested, grid_steps)
            for name, one in cheaper.items()
        },
        "predictors": [
            {
                "predictor": one.predictor,
                "ranking": one.ranking,
                "scores": one.scores,
                "by_seed": one.by_seed,
                "steps": one.steps,
                "seconds": one.seconds,
                "on_dev": vars(agreement(one, on_dev, grid_steps)),
                "on_test": vars(agreement(one, on_test, grid_steps)),
            }
            for one in predictions
        ],
        "extension": {
            "dev": extension_as_dict(extension_test(dev, n_layers), n_layers),
            "test": extension_as_dict(
                extension_test({mask: one.scores for mask, one in tested.items()}, n_layers), n_layers
            ),
        },
    }


def _beside_the_grid(
    chosen: Chosen,
    best: str,
    error: float,
    on_dev: Mapping[str, float],
    on_test: Mapping[str, float],
    tested: Mapping[str, ScoresOnTest],
    grid_steps: int,
) -> dict[str, Any]:
    """A strategy's choice compared with the grid's best mask, whose standard error on dev is `error`."""
    difference = None if chosen.mask == best else _difference(tested, best, chosen.mask)
    return {
        "chosen": chosen.mask,
        "dev": on_dev[chosen.mask],
        "test": on_test[chosen.mask],
        "steps": chosen.steps,
        "share": chosen.steps / grid_steps,
        "regret_on_dev": on_dev[best] - on_dev[chosen.mask],
        "within_one_standard_error": on_dev[best] - on_dev[chosen.mask] <= error,
        "grid_less_this_on_test": difference,
        "significantly_worse": difference is not None and difference["mean"] > 0 and difference["p"] < LEVEL,
    }


def _difference(tested: Mapping[str, ScoresOnTest], one: str, other: str) -> dict[str, float] | None:
    """The difference of two masks on the test set; None if the score has no counts per document."""
    first, second = tested[one].counts, tested[other].counts
    return None if first is None or second is None else vars(paired_bootstrap(first, second))
