"""Documents that were annotated only for some labels: for the others, their annotation says nothing."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from spacy.tokens import Doc, Span
from spacy.training import Example

from ..errors import DataError
from .gold_spans import given_spans, name_of

# The key in doc.user_data of the labels of spans for which a document was annotated. Without it: all.
ANNOTATED = "annotated"


def annotated_labels(doc: Doc) -> frozenset[str] | None:
    """The labels for which a document was annotated; None: all of them.

    RAISES (DataError): Its entry is not a list of labels.
    """
    return None if (labels := doc.user_data.get(ANNOTATED)) is None else check_label_set(labels, name_of(doc))


def check_label_set(labels: Any, where: str) -> frozenset[str]:
    """Check a list of labels, and return it as a set.

    where (str): For the message.
    RAISES (DataError): It is not a list of labels.
    """
    fine = isinstance(labels, (list, tuple)) and all(isinstance(label, str) and label for label in labels)
    if not fine:
        raise DataError(
            f'{where}: {ANNOTATED!r} is {labels!r}; it must be a list of labels such as ["city"], those for which the '
            f"document was annotated."
        )
    return frozenset(labels)


def annotated_in(docs: Iterable[Doc], labels: Sequence[str]) -> np.ndarray:
    """Which labels each document was annotated for.

    labels (Sequence[str]): The labels of a component.
    RETURNS (ndarray[bool]): Shape (documents, labels).
    RAISES (DataError): The entry of a document is not a list of labels.
    """
    sets = [annotated_labels(doc) for doc in docs]
    table = {own: [own is None or label in own for label in labels] for own in set(sets)}
    return np.array([table[own] for own in sets], dtype=bool).reshape(len(sets), len(labels))


def is_judged(label: str, reference: Doc) -> bool:
    """Whether a gold document can decide if a span with this label is right or wrong."""
    annotated = annotated_labels(reference)
    return annotated is None or label in annotated


def with_judged_spans(example: Example, spans_key: str | None) -> Example:
    """The same example, or one whose predicted document has only the spans that the gold one can judge.

    spans_key (str | None): For spans in `doc.spans[spans_key]`; None: for entities.
    """
    annotated = annotated_labels(example.reference)
    predicted = example.predicted
    given = given_spans(predicted, spans_key) or []
    if annotated is None or all(span.label_ in annotated for span in given):
        return example
    copy = Doc(
        predicted.vocab,
        words=[token.text for token in predicted],
        spaces=[bool(token.whitespace_) for token in predicted],
    )
    kept = [Span(copy, span.start, span.end, label=span.label) for span in given if span.label_ in annotated]
    if spans_key is None:
        copy.set_ents(kept)
    else:
        copy.spans[spans_key] = kept
    return Example(copy, example.reference)
