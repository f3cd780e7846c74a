"""One training under many masks.

The mask changes from step to step, and then every mask is scored on the weights that were trained under all of them.
"""

import time
from collections.abc import Sequence
from statistics import mean
from typing import Any

from spacy.training.loop import DIR_MODEL_LAST, create_evaluation_callback
from spacy.util import load_model

from ..errors import SettingError
from ..files import TemporaryFolder
from ..pipeline.billm_transformer import BiLLMTransformer
from ..training.quiet_run import run_training
from .experiment import Experiment
from .strategies import Shared
from .training import Training


def check_shared(experiment: Experiment, ways: Sequence[str]) -> None:
    """Check that a config allows shared trainings.

    RAISES (SettingError): The config uses the callback that changes the mask, or has too few steps.
    """
    most = max(len(masks) for masks in Shared(ways, (0,), experiment.steps).masks.values())
    if experiment.config["training"].get("before_update"):
        raise SettingError(
            "a training under several masks changes the mask by training.before_update, which the config already uses. "
            "Set it to null, or use search --strategy grid, or another --predictor of predict-mask."
        )
    if experiment.steps < most:
        raise SettingError(
            f"training.max_steps = {experiment.steps} is too short for a training under {most} masks, each of which "
            f"needs a step. Raise it, or use search --strategy grid, or another --predictor of predict-mask."
        )


def train_shared(experiment: Experiment, training: Training, use_gpu: int = -1) -> tuple[float, dict[str, Any]]:
    """Train once under all masks of a training, and score each mask on the development set. No model is kept.

    RETURNS (tuple[float, dict]): The mean of the scores, and the record with the scores under "by_mask".
    """
    begun = time.monotonic()
    config = experiment.config_of(Training("none", training.seed, training.steps, training.settings))
    config["training"]["before_update"] = {
        "@callbacks": "spacy-lsbillm.random_masks.v1",
        "masks": training.masks,
        "seed": training.seed,
        "component": experiment.component,
    }
    # Scores during training would be those of the current mask only. The last weights count, so evaluate at the end.
    config["training"]["eval_frequency"] = training.steps
    # spaCy would count patience from the evaluation before the first step.
    config["training"]["patience"] = 0
    with TemporaryFolder() as folder:
        run = run_training(config, folder, use_gpu)
        nlp = load_model(folder / DIR_MODEL_LAST)
    transformer = nlp.get_pipe(experiment.component)
    assert isinstance(transformer, BiLLMTransformer)
    _, dev = experiment.corpora()
    evaluate = create_evaluation_callback(nlp, dev, config.interpolate()["training"]["score_weights"])
    scores = {}
    for mask in training.masks:
        transformer.use_mask(mask)
        scores[mask], _ = evaluate()
    seconds = round(time.monotonic() - begun, 1)
    return mean(scores.values()), {"by_mask": scores, "curve": run.curve, "seconds": seconds}
