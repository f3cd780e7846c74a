"""The predictors by name: which ones exist, what each refuses, and the ranking by one of them."""

from collections.abc import Sequence
from pathlib import Path

from .experiment import Experiment
from .first_steps import first_steps, short_length
from .one_shot import one_shot
from .prediction import Prediction
from .probe import probe, task_of
from .shared import check_shared
from .study import Study

ONE_SHOT, PROBE, FIRST_STEPS, FIRST_LOSS = "one-shot", "probe", "first-steps", "first-loss"


def check_predictor(predictor: str, experiment: Experiment, masks: Sequence[str], share: float) -> None:
    """Refuse, before any training, what a predictor cannot rank.

    predictor (str): One of the constants of this module.
    masks (Sequence[str]): The masks to rank.
    share (float): The fraction of the training steps for "first-steps" and "first-loss".
    RAISES (SettingError): The config, the masks or the share do not suit the predictor.
    """
    if predictor == ONE_SHOT:
        check_shared(experiment, masks)
    elif predictor == PROBE:
        task_of(experiment)
    else:
        short_length(experiment.steps, share)


def rank(
    predictor: str,
    experiment: Experiment,
    masks: Sequence[str],
    seeds: Sequence[int],
    study: Study,
    folder: Path,
    *,
    share: float,
    use_gpu: int = -1,
) -> Prediction:
    """Rank masks with a predictor that `check_predictor` has accepted.

    study (Study), folder (Path): Where its trainings are recorded and kept; finished ones are not repeated.
    """
    if predictor == ONE_SHOT:
        return one_shot(experiment, masks, seeds, study, folder, use_gpu=use_gpu)
    if predictor == PROBE:
        return probe(experiment, masks, folder, use_gpu=use_gpu)
    by_loss = predictor == FIRST_LOSS
    return first_steps(experiment, masks, seeds, study, folder, share=share, use_gpu=use_gpu, by_loss=by_loss)
