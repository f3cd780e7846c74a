"""A ranking of masks by their first steps: every mask is trained, but only briefly."""

from collections.abc import Sequence
from math import ceil, floor
from pathlib import Path
from statistics import mean

from ..errors import SettingError
from .experiment import Experiment
from .prediction import Prediction
from .run import run_all
from .strategies import Grid
from .study import Study
from .trainer import trainer
from .training import Training


def short_length(steps: int, share: float) -> int:
    """The number of steps of a short training.

    steps (int): The steps of a training in full.
    share (float): The fraction of them to train.
    RAISES (SettingError): The share is not between 0 and 1, or leaves no step.
    """
    if not 0 < share < 1:
        raise SettingError(f"--share {share} is not allowed: it must be above 0 and below 1.")
    # A tolerance: 0.29 * 100 is slightly below 29 in floating point.
    short = floor(share * steps + 1e-9)
    if not short:
        least = ceil(1000 / steps) / 1000
        raise SettingError(f"--share {share} of {steps} steps is less than one step. Use at least {least}.")
    return short


def first_steps(
    experiment: Experiment,
    masks: Sequence[str],
    seeds: Sequence[int],
    study: Study,
    folder: Path,
    *,
    share: float,
    use_gpu: int = -1,
    by_loss: bool = False,
) -> Prediction:
    """Rank masks by short trainings.

    Each mask is trained for a fraction of the steps, in which the learning rate runs through its whole schedule.

    study (Study), folder (Path): Where the trainings are recorded and kept; finished ones are not repeated.
    share (float): The fraction of the steps.
    by_loss (bool): Rank by the training loss, lowest first, instead of the score on the development set, which may
        still be 0 for every mask.
    RETURNS (Prediction): The ranking, and what it cost.
    """
    steps = short_length(experiment.steps, share)
    run_all(Grid(masks, seeds, steps), study, trainer(experiment, folder, use_gpu), "short trainings")
    results = study.results()
    runs = {mask: [results[Training(mask, seed, steps)] for seed in seeds] for mask in masks}
    by_seed = {mask: [-run.record["loss"] if by_loss else run.score for run in runs[mask]] for mask in masks}
    return Prediction(
        "first-loss" if by_loss else "first-steps",
        {mask: mean(scores) for mask, scores in by_seed.items()},
        steps * len(masks) * len(seeds),
        sum(run.record["seconds"] for own in runs.values() for run in own),
        by_seed,
    )
