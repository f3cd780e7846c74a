"""A ranking of masks by the first steps: every mask is trained, but briefly."""

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
    """The steps of a short training.

    steps (int): Of one in full.
    share (float): Of those.
    RAISES (SettingError): The share is not one, or leaves no step.
    """
    if not 0 < share < 1:
        raise SettingError(f"--share {share} is not allowed: it must be above 0 and below 1.")
    # 0.29 * 100 is a little less than 29.
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
    """Train each mask for a share of the steps, as a training of its own with the learning rate's whole schedule.

    study (Study), folder (Path): Where the trainings go; finished ones are not done again.
    by_loss (bool): Rank by the training loss, the lowest first, rather than by the score on the development set, which
        may still be 0 everywhere.
    """
    steps = short_length(experiment.steps, share)
    run_all(Grid(masks, seeds, steps), study, trainer(experiment, folder, use_gpu), "short trainings")
    found = study.finished()
    runs = {mask: [found[Training(mask, seed, steps)] for seed in seeds] for mask in masks}
    by_seed = {mask: [-one.record["loss"] if by_loss else one.score for one in runs[mask]] for mask in masks}
    return Prediction(
        "first-loss" if by_loss else "first-steps",
        {mask: mean(scores) for mask, scores in by_seed.items()},
        steps * len(masks) * len(seeds),
        sum(one.record["seconds"] for ones in runs.values() for one in ones),
        by_seed,
    )
