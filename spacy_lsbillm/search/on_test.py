"""The test scores of the way that a search has chosen, and of the baselines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from spacy.language import Language
from spacy.scorer import Scorer
from spacy.training import Corpus
from spacy.training.loop import DIR_MODEL_BEST
from spacy.util import load_model

from ..pipeline.span_component import SpanComponent
from .experiment import Experiment
from .outcome import ScoresOnTest
from .significance import counts_for, spans_key_of
from .trainer import Train, model_folder, trainer
from .training import Training
from .ways import find_same_way

BASELINES = ("none", "all")


def ways_to_test(chosen: str, ways: Sequence[str], experiment: Experiment) -> list[str]:
    """The chosen way and the baselines, under the names they have among the ways of the search."""
    compared = [chosen]
    for baseline in BASELINES:
        same = find_same_way(baseline, [*compared, *ways], experiment.n_layers) or baseline
        if same not in compared:
            compared.append(same)
    return compared


def _threshold(nlp: Language) -> float | None:
    """The lowest probability at which a class counts; None if classes exclude each other."""
    for name in nlp.pipe_names:
        if nlp.get_pipe_meta(name).factory == "textcat_multilabel":
            pipe: Any = nlp.get_pipe(name)
            return float(pipe.cfg["threshold"])
    return None


def _judged(nlp: Language, score: str) -> bool:
    """Whether a score of spans is that of one of our own components."""
    key = spans_key_of(score)
    return any(isinstance(pipe, SpanComponent) and pipe.spans_key == key for _, pipe in nlp.pipeline)


def scores_on_test(
    experiment: Experiment,
    way: str,
    seeds: Sequence[int],
    test: Path,
    score: str,
    folder: Path,
    train: Train | None = None,
) -> ScoresOnTest:
    """Score the models of a way's trainings in full on a test set.

    folder (Path): The folder in which the trainings have left the models.
    train (Callable | None): Repeats a training whose model is missing; None: `trainer` does, on the CPU.
    RETURNS (ScoresOnTest): One score per seed, and the counts behind it.
    """
    scores, counts = [], []
    for seed in seeds:
        training = Training.of(way, seed, experiment.steps)
        place = model_folder(folder, training)
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name(f"{place.name}.lock")):
            if not place.is_dir():
                # The model was trained on another machine, or was removed.
                (train or trainer(experiment, folder))(training)
        nlp = load_model(place / DIR_MODEL_BEST)
        examples = list(Corpus(test)(nlp))
        # nlp.evaluate would annotate copies, and the examples would have no predictions to count.
        for example, doc in zip(examples, nlp.pipe([example.predicted for example in examples]), strict=True):
            example.predicted = doc
        scores.append(float(Scorer(nlp).score(examples)[score]))
        count = counts_for(score, _threshold(nlp), _judged(nlp, score))
        if count is not None:
            counts.append([count(example) for example in examples])
    return ScoresOnTest(way, scores, np.array(counts) if counts else None)
