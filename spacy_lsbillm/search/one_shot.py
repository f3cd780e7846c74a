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
    """Rank masks by shared trainings.

    There is one per seed, as long as a training in full, after which every mask is scored on the development set.

    study (Study), folder (Path): Where the trainings are recorded and kept; finished ones are not repeated.
    RETURNS (Prediction): The ranking, and what it cost.
    """
    strategy = Shared(masks, seeds, experiment.steps)
    run_all(strategy, study, trainer(experiment, folder, use_gpu), "trainings under all masks")
    results = study.results()
    shared = [results[training] for training in strategy.trainings]
    by_seed = {mask: [result.by_mask[mask] for result in shared] for mask in masks}
    return Prediction(
        "one-shot",
        {mask: mean(scores) for mask, scores in by_seed.items()},
        experiment.steps * len(seeds),
        sum(result.record["seconds"] for result in shared),
        by_seed,
    )
