"""Scores of classes: spaCy's own, extended to unknown classes, and accuracy per question for multiple choice."""

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
    """Create a scorer with spaCy's scores of categories, for classes that the model does not know.

    These count as missed, and documents without annotation do not count.

    multi_label (bool): For `textcat_multilabel`.
    """
    # Not a nested function, which could not be sent to another process.
    return partial(textcat_score, multi_label=multi_label)


def textcat_score(examples: Iterable[Example], *, multi_label: bool, **kwargs: Any) -> dict[str, Any]:
    """Score the categories of documents, like spaCy's own scorer in all but three cases.

    - A gold class that was not in training counts as missed, with a warning. spaCy's scorer ignores it, and scores a
      document whose only gold class is unknown as if it belonged to the first known class.
    - A document without annotation does not count. If classes are exclusive, spaCy's scorer counts its predicted class
      as wrong.
    - With exclusive classes, a document that is annotated with none of them does not count, with a warning. spaCy's
      scorer counts the first class as right.

    RETURNS (dict[str, Any]): The scores, and `cats_ece`, the expected calibration error of the most probable classes,
        or of all classes if they are not exclusive. Each is None, except for the description of `cats_score`, if no
        document counts.
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
                f"{len(without)} documents have none of the exclusive classes, such as "
                f"{without[0].reference.text[:60]!r}: they do not count in the scores. If documents may have none, use "
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
    """The probabilities for a calibration error, and whether they belong to right classes.

    They are those of each document's most probable class if classes are exclusive, else those of each class for which
    the document has annotation.

    RETURNS (tuple[ndarray[float64], ndarray[bool]]): Both of shape (decisions,).
    """
    scores: list[float] = []
    right: list[bool] = []
    for example in examples:
        gold, predicted = example.reference.cats, example.predicted.cats
        names = [name for name in labels if name in predicted and (not multi_label or name in gold)]
        if not multi_label:
            names = sorted(names, key=predicted.__getitem__)[-1:]
        scores += [predicted[name] for name in names]
        right += [gold.get(name, 0.0) > 0.5 for name in names]
    return np.array(scores, dtype=np.float64), np.array(right, dtype=bool)


def make_choice_scorer() -> Callable[..., dict[str, Any]]:
    """Create a scorer with accuracy per question in addition to spaCy's scores of categories."""
    return choice_score


def choice_score(examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
    """The fraction of questions whose right choice has the highest probability.

    Letters beyond the choices of a question are ignored; among equal ones the first counts. Questions without a gold
    answer do not count.

    RAISES (DataError): A document does not name its question.
    """
    examples = list(examples)
    chances: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for example in examples:
        gold, predicted = example.reference.cats, example.predicted.cats
        if QUESTION not in example.reference.user_data:
            raise DataError(
                f"the document {example.reference.text[:60]!r} does not name the question it belongs to. Read the "
                f'corpus with "spacy-lsbillm.MultipleChoice.v1", or convert it with --choices.'
            )
        names = [RIGHT] if RIGHT in gold else list(gold)
        chances[example.reference.user_data[QUESTION]] += [(predicted.get(name, 0.0), gold[name]) for name in names]
    answered = [of_question for of_question in chances.values() if of_question]
    right = sum(max(of_question, key=lambda pair: pair[0])[1] for of_question in answered)
    scores = textcat_score(examples, multi_label=False, **kwargs)
    return {ACCURACY: right / len(answered) if answered else None, **scores}
