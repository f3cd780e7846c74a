"""The files that a search writes: a table, a result file for programs, a config, and an HTML page."""

from pathlib import Path
from typing import Any

from filelock import FileLock

from ..backbone import unmasks
from ..files import write_text
from .experiment import Experiment
from .json_results import as_json, ranking_as_json
from .outcome import Outcome
from .page import as_html
from .prediction import Prediction
from .tables import as_markdown, ranking_as_markdown
from .ways import mask_of, settings_of

LOCK = ".report.lock"


def write_report(folder: Path, outcome: Outcome, experiment: Experiment, about: dict[str, Any]) -> dict[str, Path]:
    """Write the files of a search. Each appears complete or not at all.

    RETURNS (dict): The path of each file: "table", "results", "config", "report".
    """
    return _write(
        folder,
        {
            "table": ("table.md", as_markdown(outcome, experiment)),
            "results": ("results.json", as_json(outcome, experiment, about)),
            "config": ("best.cfg", _config_with(outcome.chosen, experiment)),
            "report": ("report.html", as_html(outcome, experiment, about)),
        },
    )


def write_ranking(
    folder: Path, prediction: Prediction, experiment: Experiment, n_seeds: int, about: dict[str, Any]
) -> dict[str, Path]:
    """Write the files of a ranking. Each appears complete or not at all.

    n_seeds (int): The number of seeds of the full search that the ranking is to replace.
    RETURNS (dict): The path of each file: "ranking", "results", "config".
    """
    grid_steps = experiment.steps * len(prediction.ranking) * n_seeds
    return _write(
        folder,
        {
            "ranking": ("ranking.md", ranking_as_markdown(prediction, experiment.n_layers, grid_steps)),
            "results": ("ranking.json", ranking_as_json(prediction, experiment, grid_steps, about)),
            "config": ("predicted.cfg", _config_with(prediction.ranking[0], experiment)),
        },
    )


def _config_with(way: str, experiment: Experiment) -> str:
    config = experiment.config.copy()
    model = config["components"][experiment.component]["model"]
    model.update(settings_of(way))
    model["unmask"] = mask_of(way)
    if not unmasks(mask_of(way)) and experiment.model.get("unmask_warmup"):
        # The warm-up of the config is for masks that unmask layers.
        model["unmask_warmup"] = 0
    return config.to_str(interpolate=False) + "\n"


def _write(folder: Path, contents: dict[str, tuple[str, str]]) -> dict[str, Path]:
    paths = {}
    # Several processes may finish at once.
    with FileLock(folder / LOCK):
        for kind, (name, text) in contents.items():
            paths[kind] = folder / name
            write_text(paths[kind], text)
    return paths
