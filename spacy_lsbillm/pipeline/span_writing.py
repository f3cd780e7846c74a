"""Predicted spans with their scores, written to a document."""

import numpy as np
from spacy.tokens import Doc, Span, SpanGroup

# The scores of the entities, one of each; None for those that the model did not find.
SCORES = "ent_scores"


def register_scores() -> None:
    """Make `doc._.ent_scores` known to spaCy."""
    if not Doc.has_extension(SCORES):
        Doc.set_extension(SCORES, default=None)


def write_entities(doc: Doc, found: list[Span], scores: list[float]) -> None:
    """Write entities, and their scores into `doc._.ent_scores`. Entities that are there, and tokens where there may be
    none, stay as they are.

    found (list[Span]): In the order of the text, none overlapping another.
    scores (list[float]): One of each.
    """
    before = doc.ents
    iob, kinds = doc.to_array(["ENT_IOB", "ENT_TYPE"]).T if doc.has_annotation("ENT_IOB") else ((), ())
    # "B" without a type: a token that was blocked.
    blocked = [doc[i : i + 1] for i in np.flatnonzero((np.asarray(iob) == 3) & (np.asarray(kinds) == 0)).tolist()]
    by_start = dict(zip((ent.start for ent in before), doc._.get(SCORES) or [None] * len(before), strict=False))
    taken = {i for span in (*before, *blocked) for i in range(span.start, span.end)}
    free = [i for i, span in enumerate(found) if not taken or taken.isdisjoint(range(span.start, span.end))]
    doc.set_ents([*before, *(found[i] for i in free)], blocked=blocked)
    by_start |= {found[i].start: scores[i] for i in free}
    doc._.set(SCORES, [by_start.get(ent.start) for ent in doc.ents])


def write_group(doc: Doc, key: str, found: list[Span], scores: list[float]) -> None:
    """Write spans to `doc.spans[key]`, in place of what is there, and their scores into the group's attributes."""
    doc.spans[key] = SpanGroup(doc, name=key, spans=found, attrs={"scores": scores})
