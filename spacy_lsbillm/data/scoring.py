"""Accuracy by question, for multiple choice with a `textcat`."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from spacy.scorer import Scorer
from spacy.training import Example

from ..errors import DataError
from .choices import QUESTION, RIGHT

ACCURACY = "choice_acc"


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
    found = Scorer.score_cats(examples, "cats", multi_label=False, **kwargs)
    return {ACCURACY: right / len(answered) if answered else None, **found}
