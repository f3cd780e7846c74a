"""A ranking of masks from shared trainings, one per seed."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from .experiment import Experiment
from .prediction import Prediction
from .run import run_all
from .strategies import Shared
from .study import Study
from .trainer import trainer


def one_shot(
    experiment: Experiment, masks: Sequence[str], seeds: Sequence[int], study: Study, folder: Path, *, use_gpu: int = -1
) -> Prediction:
    """Rank masks by shared trainings: one per seed, as long as a training in full, after which every mask is scored on
    the development set.

    study (Study), folder (Path): Where the trainings are recorded and kept; finished ones are not repeated.
    RETURNS (Prediction): The ranking, and what it cost.
    """
    plan = Shared(masks, seeds, experiment.steps)
    run_all(plan, study, trainer(experiment, folder, use_gpu), "trainings under all masks")
    results = study.finished()
    found = [results[training] for training in plan.trainings]
    by_seed = {mask: [one.by_mask[mask] for one in found] for mask in masks}
    return Prediction(
        "one-shot",
        {mask: mean(scores) for mask, scores in by_seed.items()},
        experiment.steps * len(seeds),
        sum(one.record["seconds"] for one in found),
        by_seed,
    )
