"""Predicted spans with their scores, written to a document."""

from typing import Any

import numpy as np
from spacy.tokens import Doc, Span, SpanGroup

# The scores of the entities, one of each; None for those that the model did not find.
SCORES = "ent_scores"


def register_scores() -> None:
    """Make `doc._.ent_scores` known to spaCy."""
    if not Doc.has_extension(SCORES):
        Doc.set_extension(SCORES, getter=_scores_of_entities)


def _scores_of_entities(doc: Doc) -> list[float | None]:
    """Of the entities as they are now: a later component may have exchanged some."""
    found = ((ent, doc.user_data.get(_key(ent), (None, None))) for ent in doc.ents)
    return [score if label == ent.label_ else None for ent, (label, score) in found]


def _key(ent: Span) -> Any:
    """As spaCy keeps what belongs to a span, which `Span.as_doc` and `Doc.from_docs` move along with the text. (Its own
    types know of strings alone.)"""
    return ("._.", SCORES, ent.start_char, ent.end_char)


def write_entities(doc: Doc, found: list[Span], scores: list[float]) -> None:
    """Write entities, and their scores for `doc._.ent_scores`. Entities that are there, and tokens where there may be
    none, stay as they are.

    found (list[Span]): In the order of the text, none overlapping another.
    scores (list[float]): One of each.
    """
    before = doc.ents
    iob, kinds = doc.to_array(["ENT_IOB", "ENT_TYPE"]).T if doc.has_annotation("ENT_IOB") else ((), ())
    # "B" without a type: a token that was blocked.
    blocked = [doc[i : i + 1] for i in np.flatnonzero((np.asarray(iob) == 3) & (np.asarray(kinds) == 0)).tolist()]
    taken = {i for span in (*before, *blocked) for i in range(span.start, span.end)}
    free = [i for i, span in enumerate(found) if not taken or taken.isdisjoint(range(span.start, span.end))]
    doc.set_ents([*before, *(found[i] for i in free)], blocked=blocked)
    for i in free:
        doc.user_data[_key(found[i])] = (found[i].label_, scores[i])


def write_group(doc: Doc, key: str, found: list[Span], scores: list[float]) -> None:
    """Write spans to `doc.spans[key]`, in place of what is there, and their scores into the group's attributes."""
    doc.spans[key] = SpanGroup(doc, name=key, spans=found, attrs={"scores": scores})
