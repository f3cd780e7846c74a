"""What trains a cell of a search in this process, and where its model lies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..training.quiet_run import TrainingRun
from .experiment import Experiment
from .shared import train_shared
from .space import Cell, file_name

MODELS = "models"


# Cell to score and record.
Train = Callable[[Cell], tuple[float, dict[str, Any]]]


def trainer(experiment: Experiment, folder: Path, use_gpu: int = -1) -> Train:
    """What trains a cell of a study.

    folder (Path): Models of full trainings are kept in it.
    RETURNS (Callable): Cell to score and record.
    """

    def train(cell: Cell) -> tuple[float, dict[str, Any]]:
        if len(cell.masks) > 1:
            return train_shared(experiment, cell, use_gpu)
        run = experiment.run(cell, model_folder(folder, cell), use_gpu)
        return run.score, _record(run, experiment.component)

    return train


def model_folder(folder: Path, cell: Cell) -> Path:
    """Where a trial works."""
    return folder / MODELS / file_name(cell.way) / f"{cell.seed}-{cell.steps}"


def _record(run: TrainingRun, component: str) -> dict[str, Any]:
    numbers = {name: value for name, value in run.scores.items() if isinstance(value, int | float)}
    # The transformer's own is the size of its gradients.
    loss = sum(value for name, value in run.losses.items() if name != component)
    return {"curve": run.curve, "seconds": round(run.seconds, 1), "scores": numbers, "loss": loss}
