"""Writing predicted spans with their scores to a document."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from spacy.tokens import Doc, Span, SpanGroup

from ..tagging import Spans
from .soft_tags import SoftTags

# `ent._.ent_score`: the score of an entity, None for one that the model did not find. `doc._.ent_scores`: all of them.
SCORE = "ent_score"
SCORES = "ent_scores"


@dataclass(frozen=True)
class Predicted:
    """The predicted spans of some documents, whose tokens are numbered consecutively.

    first (ndarray[int64]): The number of each document's first token.
    candidates (Spans | None): Candidates, which may overlap, if they are requested.
    soft (SoftTags | None): The most probable tags of all tokens, if they are requested.
    """

    spans: Spans
    first: np.ndarray
    candidates: Spans | None = None
    soft: SoftTags | None = None


def by_document(
    docs: Sequence[Doc], spans: Spans, first: np.ndarray, labels: Sequence[str]
) -> Iterator[tuple[Doc, list[Span], list[float]]]:
    """Yield each document with its predicted spans and their scores.

    spans (Spans): Sorted by start.
    first (ndarray[int64]): The number of each document's first token.
    labels (Sequence[str]): Labels in the order of their numbers.
    """
    where = np.searchsorted(first, spans.start, side="right") - 1
    # Of documents that begin at the same token all but the last are empty.
    offset = first[where]
    rows = zip(
        (spans.start - offset).tolist(),
        (spans.end - offset).tolist(),
        spans.label.tolist(),
        spans.score.tolist(),
        strict=True,
    )
    counts = np.bincount(where, minlength=len(docs)).tolist()
    for doc, count in zip(docs, counts, strict=True):
        chosen = list(islice(rows, count))
        own = [Span(doc, start, end, label=labels[label]) for start, end, label, _ in chosen]
        yield doc, own, [score for *_, score in chosen]


def register_scores() -> None:
    """Make `ent._.ent_score` and `doc._.ent_scores` known to spaCy."""
    if not Span.has_extension(SCORE):
        Span.set_extension(SCORE, getter=_score_of, setter=_set_score)
    if not Doc.has_extension(SCORES):
        Doc.set_extension(SCORES, getter=scores_of_entities, setter=_set_scores_of_entities)


def _score_of(span: Span) -> float | None:
    """The score of an entity.

    It is stored by place in the text, where a later component may have put another entity.
    """
    label, score = span.doc.user_data.get(_key(span), (None, None))
    return score if label == span.label_ else None


def _set_score(span: Span, score: Any) -> None:
    """Set the score of a span.

    score (float | None | list): The score, or what is stored, the label and the score: `Doc.from_json` passes that.
    """
    span.doc.user_data[_key(span)] = score if isinstance(score, list) else [span.label_, score]


def scores_of_entities(doc: Doc) -> list[float | None]:
    """The scores of all entities in `doc.ents`; None for one without a score."""
    return [_score_of(ent) for ent in doc.ents]


def _set_scores_of_entities(doc: Doc, scores: list[float | None]) -> None:
    if len(scores) != len(doc.ents):
        raise ValueError(f"doc._.{SCORES} must have as many scores as there are entities: {len(doc.ents)}.")
    for ent, score in zip(doc.ents, scores, strict=True):
        _set_score(ent, score)


def _key(span: Span) -> Any:
    """The key by which spaCy stores attributes of a span, which `Span.as_doc`, `Doc.from_docs` and `Doc.to_json` use.

    (Its own types only allow strings.)
    """
    return ("._.", SCORE, span.start_char, span.end_char)


def write_entities(doc: Doc, spans: list[Span], scores: list[float] | None) -> None:
    """Write entities and their scores. Existing entities, and tokens that are blocked for entities, are not changed.

    spans (list[Span]): In the order of the text, without overlaps.
    scores (list[float] | None): One per entity; None: they get none.
    """
    if doc.has_annotation("ENT_IOB"):
        spans, scores = _put_beside(doc, spans, scores)
    else:
        doc.set_ents(spans)
    if scores is not None:
        for span, score in zip(spans, scores, strict=True):
            _set_score(span, score)


def _put_beside(doc: Doc, spans: list[Span], scores: list[float] | None) -> tuple[list[Span], list[float] | None]:
    """Write the entities that do not overlap existing ones or blocked tokens, and return them with their scores."""
    before = doc.ents
    iob, kinds = doc.to_array(["ENT_IOB", "ENT_TYPE"]).T
    # "B" without a type: a token that was blocked.
    blocked = [doc[i : i + 1] for i in np.flatnonzero((iob == 3) & (kinds == 0)).tolist()]
    taken = {i for span in (*before, *blocked) for i in range(span.start, span.end)}
    free = [i for i, span in enumerate(spans) if taken.isdisjoint(range(span.start, span.end))]
    doc.set_ents([*before, *(spans[i] for i in free)], blocked=blocked)
    return [spans[i] for i in free], None if scores is None else [scores[i] for i in free]


def write_group(doc: Doc, key: str, spans: list[Span], scores: list[float] | None) -> None:
    """Write spans to `doc.spans[key]`, in place of existing ones.

    Their scores, if they have any, are written to the group's attributes.
    """
    doc.spans[key] = SpanGroup(doc, name=key, spans=spans, attrs={} if scores is None else {"scores": scores})
