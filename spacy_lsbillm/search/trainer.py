"""Runs trainings of a search in this process, and says where their models are kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..training.quiet_run import TrainingRun
from .experiment import Experiment
from .shared import train_shared
from .training import Training
from .ways import file_name

MODELS = "models"


# Runs a training; returns its score and its record.
Train = Callable[[Training], tuple[float, dict[str, Any]]]


def trainer(experiment: Experiment, folder: Path, use_gpu: int = -1) -> Train:
    """Create the function that runs a training in this process.

    folder (Path): The folder in which the models of trainings in full are kept.
    RETURNS (Callable): Runs a training; returns its score and its record.
    """

    def train(training: Training) -> tuple[float, dict[str, Any]]:
        if len(training.masks) > 1:
            return train_shared(experiment, training, use_gpu)
        run = experiment.run(training, model_folder(folder, training), use_gpu)
        return run.score, _record(run, experiment.component)

    return train


def model_folder(folder: Path, training: Training) -> Path:
    """The folder in which the model of a training in full is kept."""
    return folder / MODELS / file_name(training.way) / f"{training.seed}-{training.steps}"


def _record(run: TrainingRun, component: str) -> dict[str, Any]:
    numbers = {name: value for name, value in run.scores.items() if isinstance(value, int | float)}
    # Without the transformer's entry, which is the size of its gradients.
    loss = sum(value for name, value in run.losses.items() if name != component)
    return {"curve": run.curve, "seconds": round(run.seconds, 1), "scores": numbers, "loss": loss}
