"""A ranking of masks from one training: the mask changes from step to step, and every mask is then scored on the
weights that have seen them all.

The idea is that of one-shot architecture search (Bender et al., 2018, "Understanding and Simplifying One-Shot
Architecture Search"; Guo et al., 2020); whether it ranks masks well is a question of its own.
"""

import hashlib
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from spacy.training.loop import DIR_MODEL_LAST, create_evaluation_callback
from spacy.util import load_model
from tqdm import tqdm  # type: ignore[import-untyped]

from ..errors import SettingError
from ..pipeline.billm_transformer import BiLLMTransformer
from ..training_run import run_training
from .prediction import Prediction, kept
from .space import Cell
from .trials import Subject


def check_one_shot(subject: Subject) -> None:
    """RAISES (SettingError): The config needs the place of the callback that changes the mask."""
    if subject.config["training"].get("before_update"):
        raise SettingError(
            "one-shot changes the mask by training.before_update, which the config has set already. Set that to null, "
            "or use another predictor."
        )


def one_shot(
    subject: Subject, masks: Sequence[str], seeds: Sequence[int], folder: Path, *, use_gpu: int = -1
) -> Prediction:
    """Train once a seed, for as long as one training in full, and score every mask on the development set.

    folder (Path): Where the results go; what is there is not done again.
    """
    digest = hashlib.sha256(" ".join(masks).encode()).hexdigest()[:8]
    place = folder / "predictions" / f"one-shot-{digest}"
    with tqdm(total=len(seeds), desc="trainings under all masks", unit=" trainings") as bar:

        def run(seed: int) -> dict[str, Any]:
            found = _train_and_score(subject, masks, seed, place / str(seed), use_gpu)
            bar.update()
            return found

        found = kept({place / f"{seed}.json": partial(run, seed) for seed in seeds})
    by_seed = {mask: [one["scores"][mask] for one in found] for mask in masks}
    return Prediction(
        "one-shot",
        {mask: mean(scores) for mask, scores in by_seed.items()},
        subject.steps * len(seeds),
        sum(one["seconds"] for one in found),
        by_seed,
    )


def _train_and_score(subject: Subject, masks: Sequence[str], seed: int, folder: Path, use_gpu: int) -> dict[str, Any]:
    begun = time.monotonic()
    config = subject.config_of(Cell("none", seed, subject.steps))
    config["training"]["before_update"] = {
        "@callbacks": "spacy-lsbillm.random_masks.v1",
        "masks": list(masks),
        "seed": seed,
        "component": subject.component,
    }
    # What the development set says under the mask of the moment is of no use: the last weights count.
    config["training"]["eval_frequency"] = subject.steps
    # spaCy would count it from the evaluation before the first step.
    config["training"]["patience"] = 0
    shutil.rmtree(folder, ignore_errors=True)
    run_training(config, folder, use_gpu)
    nlp = load_model(folder / DIR_MODEL_LAST)
    transformer = nlp.get_pipe(subject.component)
    assert isinstance(transformer, BiLLMTransformer)
    _, dev = subject.corpora()
    evaluate = create_evaluation_callback(nlp, dev, config.interpolate()["training"]["score_weights"])
    scores = {}
    for mask in masks:
        transformer.use_mask(mask)
        scores[mask], _ = evaluate()
    shutil.rmtree(folder)
    return {"scores": scores, "seconds": round(time.monotonic() - begun, 1)}
