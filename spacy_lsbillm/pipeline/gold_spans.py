"""The gold spans of a document, from its entities or a group of spans."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from spacy.scorer import Scorer
from spacy.tokens import Doc, Span
from spacy.training import Example

from ..errors import SettingError


def gold_spans(doc: Doc, spans_key: str | None) -> list[Span] | None:
    """The gold spans of a document, without white space at their ends; None if it has no annotation.

    spans_key (str | None): Those in `doc.spans[spans_key]`; None: its entities.
    """
    given = given_spans(doc, spans_key)
    return None if given is None else [span for span in map(trimmed, given) if span is not None]


def characters_of_gold(doc: Doc, spans_key: str | None) -> set[tuple[int, int, str]] | None:
    """The gold spans of a document as start and end character and label, to compare them with spans over other tokens.

    None if it has no annotation.
    """
    gold = gold_spans(doc, spans_key)
    if gold is None or (spans_key is None and not doc.has_annotation("ENT_IOB")):
        return None
    return {(span.start_char, span.end_char, span.label_) for span in gold}


def given_spans(doc: Doc, spans_key: str | None) -> list[Span] | None:
    """The gold spans of a document as they were annotated; None if it has no annotation."""
    if spans_key is None:
        return list(doc.ents)
    return list(doc.spans[spans_key]) if spans_key in doc.spans else None


def trimmed(span: Span) -> Span | None:
    """A span without white space tokens at its ends; None if it contains nothing else."""
    start, end = span.start, span.end
    while start < end and span.doc[start].is_space:
        start += 1
    while start < end and span.doc[end - 1].is_space:
        end -= 1
    if (start, end) == (span.start, span.end):
        return span
    return Span(span.doc, start, end, label=span.label_) if start < end else None


def with_trimmed_spans(example: Example, spans_key: str | None) -> Example:
    """The same example, or one with a copy of the gold document whose spans have no white space at their ends."""
    given = given_spans(example.reference, spans_key) or []
    changed = [span for span in given if trimmed(span) is not span]
    if not changed:
        return example
    reference = example.reference.copy()
    gold = gold_spans(example.reference, spans_key) or []
    kept = [Span(reference, span.start, span.end, label=span.label_) for span in gold]
    if spans_key is None:
        inside = {i for span in kept for i in range(span.start, span.end)}
        ends = [i for span in changed for i in range(span.start, span.end) if i not in inside]
        reference.set_ents(kept, outside=[reference[i : i + 1] for i in ends], default="unmodified")
    else:
        reference.spans[spans_key] = kept
    return Example(example.predicted, reference)


def score_group(examples: Iterable[Example], spans_key: str, **kwargs: Any) -> dict[str, Any]:
    """spaCy's scores of the spans in `doc.spans[spans_key]`. White space at the ends of gold spans does not count."""
    return Scorer.score_spans(
        [with_trimmed_spans(example, spans_key) for example in examples],
        f"spans_{spans_key}",
        getter=lambda doc, key: doc.spans.get(key.removeprefix("spans_"), []),
        has_annotation=lambda doc: spans_key in doc.spans,
        allow_overlap=True,
        labeled=True,
        **kwargs,
    )


@dataclass(frozen=True)
class AlignedSpans:
    """Gold spans in the tokens of the predicted document.

    spans (list[Span]): The gold spans that align with its tokens.
    fits (ndarray[bool]): The tokens for which the gold document says whether a span begins or ends there, shape
        (tokens,).
    """

    spans: list[Span]
    fits: np.ndarray


def aligned_spans(example: Example, spans_key: str | None) -> AlignedSpans | None:
    """The gold spans of an example, which may overlap; None if it has no annotation."""
    gold = gold_spans(example.reference, spans_key)
    if gold is None:
        return None
    if same_tokens(example):
        return AlignedSpans(gold, np.ones(len(example.predicted), dtype=bool))
    fits = example.alignment.x2y.lengths > 0
    aligned = []
    for span in gold:
        there = example.get_aligned_spans_y2x([span], allow_overlap=True)
        aligned += there
        if not there:
            fits[list(example.alignment.y2x[span.start : span.end])] = False
    return AlignedSpans(aligned, fits)


def check_overlap(spans: list[Span], doc: Doc, name: str) -> None:
    """Check that gold spans do not overlap. RAISES (SettingError): Two of them do."""
    pair = overlapping(spans)
    if pair is not None:
        raise SettingError(
            f"the gold spans {named(pair[0])} and {named(pair[1])} overlap in {name_of(doc)}: {name!r} gives each "
            f"token one label. Use a span_labeler, or one sequence_labeler per layer of spans, each with its own "
            f"spans_key."
        )


def overlapping(spans: list[Span]) -> tuple[Span, Span] | None:
    """The first two spans that share a token; None if none do."""
    in_order = sorted(spans, key=lambda span: (span.start, span.end))
    return next(((one, other) for one, other in pairwise(in_order) if other.start < one.end), None)


def named(span: Span) -> str:
    """Describe a span in a message: its text and its label."""
    return f"{span.text!r} ({span.label_})"


def name_of(doc: Doc) -> str:
    """Describe a document in a message by the beginning of its text."""
    text = doc.text if len(doc.text) <= 60 else doc.text[:57] + "..."
    return f"the document {text!r}"


def same_tokens(example: Example) -> bool:
    """Whether the predicted document has the tokens of the gold one."""
    one, other = (doc.to_array(["ORTH", "SPACY"]) for doc in (example.predicted, example.reference))
    return np.array_equal(one, other)
