"""The result of a search, or of a ranking, as JSON for programs."""

import json
from dataclasses import asdict
from typing import Any

from .experiment import Experiment
from .extension import Extension
from .outcome import Outcome, Row
from .prediction import Prediction
from .recommend import recommendations
from .tables import words_for
from .ways import mask_of, plan_for, settings_of


def as_json(outcome: Outcome, experiment: Experiment, about: dict[str, Any]) -> str:
    """The result of a search as JSON.

    about (dict): Further entries; see `run_details`.
    """
    content = {
        "chosen": outcome.chosen,
        "chosen_layers": plan_for(outcome.chosen, experiment.n_layers).words,
        "steps": outcome.steps,
        "grid_steps": outcome.grid_steps,
        "rows": _rows_as_dicts(outcome.rows, outcome, experiment),
        "shared": _rows_as_dicts(outcome.shared, outcome, experiment),
        "test": [_way_as_dict(one.way, experiment) | {"scores": one.scores} for one in outcome.tested],
        "differences_on_test": {way: vars(one) for way, one in outcome.differences.items()},
        "spending": None if outcome.spending is None else asdict(outcome.spending),
        "recommended": {one.purpose: one.point and vars(one.point) for one in recommendations(outcome)},
        "extension": extension_as_dict(outcome.extension, experiment.n_layers),
        **about,
    }
    return json.dumps(content, indent=1) + "\n"


def _way_as_dict(way: str, experiment: Experiment) -> dict[str, Any]:
    return {
        "way": way,
        "mask": mask_of(way),
        "settings": settings_of(way),
        "layers": words_for(way, experiment.n_layers),
    }


def _rows_as_dicts(rows: list[Row], outcome: Outcome, experiment: Experiment) -> list[dict[str, Any]]:
    costs = outcome.spending.costs if outcome.spending else {}
    return [
        {
            **_way_as_dict(row.way, experiment),
            **vars(row),
            "mean": row.mean,
            "spread": row.spread,
            "cost": asdict(costs[row.way]) if row.way in costs else None,
        }
        for row in rows
    ]


def extension_as_dict(extension: Extension | None, n_layers: int) -> dict[str, Any] | None:
    """The paired test, for the result file; None if there is none."""
    if extension is None:
        return None
    pairs = [
        {
            **vars(pair),
            "layers_before": words_for(pair.before, n_layers),
            "layers_after": words_for(pair.after, n_layers),
        }
        for pair in extension.pairs
    ]
    return {"mean": extension.mean, "p": extension.p, "p_permuted": extension.p_permuted, "pairs": pairs}


def ranking_as_json(prediction: Prediction, experiment: Experiment, grid_steps: int, about: dict[str, Any]) -> str:
    """The ranking as JSON.

    grid_steps (int): The steps of the full search that the ranking is to replace.
    about (dict): Further entries; see `run_details`.
    """
    content = {
        "predictor": prediction.predictor,
        "steps": prediction.steps,
        "grid_steps": grid_steps,
        "seconds": prediction.seconds,
        "ranking": [
            {
                "mask": mask,
                "layers": words_for(mask, experiment.n_layers),
                "score": prediction.scores[mask],
                "by_seed": prediction.by_seed.get(mask, []),
            }
            for mask in prediction.ranking
        ],
        "base": experiment.identity["base"],
        **about,
    }
    return json.dumps(content, indent=1) + "\n"
