"""The annotation of a document as plain values."""

import math
from collections.abc import Sequence
from typing import Any

from spacy.tokens import Doc, Span

from ..errors import DataError
from ..pipeline.span_writing import SCORE
from .documents import ID


def record_of(doc: Doc, spans_keys: Sequence[str] | None = None) -> dict[str, Any]:
    """A document's id and text, and its annotation as plain values.

    `ents` is a list of `start` and `end` in characters, `label` and `score` (None if the component gives none); `cats`
    has the classes, and `spans` such lists by key.

    spans_keys (Sequence[str] | None): Groups of `doc.spans`; None: all that the document has.
    RAISES (DataError): A score is not a finite number.
    """
    keys = list(doc.spans) if spans_keys is None else spans_keys
    return {
        "id": doc.user_data[ID],
        "text": doc.text,
        "ents": [_span(ent, ent._.get(SCORE)) for ent in doc.ents],
        "cats": {name: _finite(score, f"the class {name!r}") for name, score in doc.cats.items()},
        "spans": {key: _group(doc, key) for key in keys},
    }


def _group(doc: Doc, key: str) -> list[dict[str, Any]]:
    if key not in doc.spans:
        return []
    group = doc.spans[key]
    scores = group.attrs.get("scores")
    if scores is None or len(scores) != len(group):
        scores = [None] * len(group)
    return [_span(span, score) for span, score in zip(group, scores, strict=True)]


def _span(span: Span, score: Any) -> dict[str, Any]:
    said = None if score is None else _finite(score, repr(span.text))
    return {"start": span.start_char, "end": span.end_char, "label": span.label_, "score": said}


def _finite(score: Any, what: str) -> float:
    score = float(score)
    if not math.isfinite(score):
        raise DataError(f"the score of {what} is {score}")
    return score
