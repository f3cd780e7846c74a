"""Scores of classes: spaCy's own with classes that are new, and accuracy by question for multiple choice."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from spacy.scorer import Scorer
from spacy.training import Example

from ..errors import DataError, in_short
from ..tagging import calibration_error

# Of multiple choice: the class of a right choice, and the key of doc.user_data with a document's question.
RIGHT = "right"
QUESTION = "question"
ACCURACY = "choice_acc"
# The expected calibration error of classes.
ERROR = "cats_ece"
# `spacy evaluate` expects a text.
DESCRIPTION = "cats_score_desc"


def make_textcat_scorer(multi_label: bool = False) -> Callable[..., dict[str, Any]]:
    """spaCy's scores of categories, in which classes that the model does not know count as missed, and documents that
    nobody has annotated do not count.

    multi_label (bool): For `textcat_multilabel`.
    """
    # Not a function in a function, which could not be sent to another process.
    return partial(textcat_score, multi_label=multi_label)


def textcat_score(examples: Iterable[Example], *, multi_label: bool, **kwargs: Any) -> dict[str, Any]:
    """spaCy's own scorer leaves out gold classes that were not in training, and takes a document that has only such a
    one for one of the first class it knows. Here it is warned of, and counts as missed. It takes a document without
    annotation for one whose predicted class is wrong, where classes exclude each other: here it does not count. One
    that is annotated with none of them, where spaCy takes the first for right as well, is warned of and left out.

    RETURNS (dict[str, Any]): The scores, and `cats_ece`, the expected calibration error of the most probable classes,
        or of all where they do not exclude each other; each None, but for the one's description, where no document
        counts.
    """
    examples = list(examples)
    labels = list(kwargs.pop("labels", ()))
    new: dict[str, Example] = {}
    for example in examples:
        for name, value in example.reference.cats.items():
            if value and labels and name not in labels:
                new.setdefault(name, example)
    if new:
        first, example = next(iter(new.items()))
        others = f", like {in_short([name for name in new if name != first])}" if len(new) > 1 else ""
        warnings.warn(
            f"the class {first!r} of the document {example.reference.text[:60]!r} was not in the training corpus"
            f"{others}: documents of it count as missed. Classes: {in_short(labels)}.",
            stacklevel=2,
        )
    counted = [example for example in examples if example.reference.cats]
    if not multi_label:
        without = [example for example in counted if not any(example.reference.cats.values())]
        if without:
            warnings.warn(
                f"{len(without)} documents have none of the classes, of which each must have one, such as "
                f"{without[0].reference.text[:60]!r}: they have no part in the scores. Where that may be, use "
                f"textcat_multilabel.",
                stacklevel=2,
            )
        counted = [example for example in counted if any(example.reference.cats.values())]
    scores = Scorer.score_cats(counted, "cats", labels=[*labels, *new], multi_label=multi_label, **kwargs)
    scores[ERROR] = calibration_error(*scores_and_truth(counted, labels, multi_label))
    return scores if counted else {name: None if name != DESCRIPTION else text for name, text in scores.items()}


def scores_and_truth(
    examples: Iterable[Example], labels: Sequence[str], multi_label: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities that a calibration error is of, and whether they are of what is right: each document's most
    probable class where classes exclude each other, else each class that the document has annotation for.

    RETURNS (tuple[ndarray[float64], ndarray[bool]]): Shape (decisions,), both.
    """
    scores: list[float] = []
    right: list[bool] = []
    for example in examples:
        gold, found = example.reference.cats, example.predicted.cats
        names = [name for name in labels if name in found and (not multi_label or name in gold)]
        if not multi_label:
            names = sorted(names, key=found.__getitem__)[-1:]
        scores += [found[name] for name in names]
        right += [gold.get(name, 0.0) > 0.5 for name in names]
    return np.array(scores, dtype=np.float64), np.array(right, dtype=bool)


def make_choice_scorer() -> Callable[..., dict[str, Any]]:
    """Accuracy by question beside spaCy's scores of categories."""
    return choice_score


def choice_score(examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
    """The share of questions whose right choice has the highest probability. Letters that a question has not are no
    choices; of equal ones the first counts. Questions without a gold answer do not count.

    RAISES (DataError): A document does not say to which question it belongs.
    """
    examples = list(examples)
    chances: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for example in examples:
        gold, predicted = example.reference.cats, example.predicted.cats
        if QUESTION not in example.reference.user_data:
            raise DataError(
                f"the document {example.reference.text[:60]!r} does not say to which question it belongs. Read the "
                f'corpus with "spacy-lsbillm.MultipleChoice.v1", or convert it with --choices.'
            )
        names = [RIGHT] if RIGHT in gold else list(gold)
        chances[example.reference.user_data[QUESTION]] += [(predicted.get(name, 0.0), gold[name]) for name in names]
    answered = [of_question for of_question in chances.values() if of_question]
    right = sum(max(of_question, key=lambda pair: pair[0])[1] for of_question in answered)
    found = textcat_score(examples, multi_label=False, **kwargs)
    return {ACCURACY: right / len(answered) if answered else None, **found}
