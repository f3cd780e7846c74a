"""The gold spans of a document, from its entities or a group of spans, and the tags that stand for them."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from spacy.tokens import Doc, Span
from spacy.training import Example

from ..errors import SettingError

# spaCy's code in `token.ent_iob` for a token that is in no entity.
OUTSIDE = 2


def gold_spans(doc: Doc, spans_key: str | None) -> list[Span] | None:
    """The gold spans of a document; None where it has no annotation.

    spans_key (str | None): Those in `doc.spans[spans_key]`; None: its entities.
    """
    if spans_key is None:
        return list(doc.ents)
    return list(doc.spans[spans_key]) if spans_key in doc.spans else None


def gold_tags(example: Example, spans_key: str | None, name: str) -> Sequence[str | None]:
    """BILUO tags of the predicted document's tokens; None where there is no annotation or tokens do not fit.

    name (str): The component's, for the message.
    RAISES (SettingError): Gold spans overlap.
    """
    if spans_key is None:
        # spaCy aligns the tokens also where there is nothing to align, which takes longer than the head's own work.
        return _own_tags(example) if _same_tokens(example) else example.get_aligned_ner()
    gold = gold_spans(example.reference, spans_key)
    if gold is None:
        return [None] * len(example.predicted)
    check_overlap(gold, example.reference, name)
    tags: list[str | None] = ["O"] * len(example.predicted)
    if not _same_tokens(example):
        # As with entities, tokens and spans that do not fit have no part in the loss.
        alignment = example.alignment
        unaligned = [i for i in np.flatnonzero(alignment.x2y.lengths == 0) if not example.predicted[int(i)].is_space]
        lost = [i for span in gold for i in alignment.y2x[span.start : span.end]]
        for i in (*unaligned, *lost):
            tags[i] = None
        gold = example.get_aligned_spans_y2x(gold)
    for span in gold:
        tags[span.start : span.end] = _biluo(span.end - span.start, span.label_)
    return tags


def check_overlap(spans: list[Span], doc: Doc, name: str) -> None:
    """RAISES (SettingError): Two of them overlap."""
    pair = overlapping(spans)
    if pair is not None:
        raise SettingError(
            f"the gold spans {named(pair[0])} and {named(pair[1])} overlap in {name_of(doc)}: {name!r} gives each "
            f"token one label. Use one sequence_labeler a layer of spans, each with a spans_key of its own, or spancat."
        )


def overlapping(spans: list[Span]) -> tuple[Span, Span] | None:
    """The first two that share a token."""
    in_order = sorted(spans, key=lambda span: (span.start, span.end))
    return next(((one, other) for one, other in pairwise(in_order) if other.start < one.end), None)


def named(span: Span) -> str:
    """A span for a message."""
    return f"{span.text!r} ({span.label_})"


def name_of(doc: Doc) -> str:
    """A document for a message."""
    text = doc.text if len(doc.text) <= 60 else doc.text[:57] + "..."
    return f"the document {text!r}"


def _same_tokens(example: Example) -> bool:
    one, other = (doc.to_array(["ORTH", "SPACY"]) for doc in (example.predicted, example.reference))
    return np.array_equal(one, other)


def _own_tags(example: Example) -> list[str | None]:
    """What `Example.get_aligned_ner` gives for documents with the same tokens."""
    doc = example.reference
    if not doc.has_annotation("ENT_IOB"):
        return [None] * len(doc)
    outside = (doc.to_array("ENT_IOB") == OUTSIDE) | doc.to_array("IS_SPACE").astype(bool)
    tags: list[str | None] = ["O" if is_outside else None for is_outside in outside.tolist()]
    for span in doc.ents:
        tags[span.start : span.end] = _biluo(span.end - span.start, span.label_)
    return tags


def _biluo(length: int, label: str) -> list[str]:
    """The tags of a span of so many tokens."""
    if length == 1:
        return [f"U-{label}"]
    return [f"B-{label}", *[f"I-{label}"] * (length - 2), f"L-{label}"]
