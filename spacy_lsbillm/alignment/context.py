"""The document around a span: pieces that are processed with it, but whose own vectors come from other windows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from spacy.tokens import Doc, Span

from ..errors import SettingError
from ..values import check_at_least

SpanGetter = Callable[[Iterable[Doc]], list[list[Span]]]


@dataclass(frozen=True)
class ContextSpans:
    """A span getter whose spans are processed together with their surroundings in the document.

    spans (SpanGetter): Returns spans that cover each document, one after the other.
    context (int): Pieces on each side of a span, as far as the document has them. 0: spans without context.
    """

    spans: SpanGetter
    context: int

    def __post_init__(self) -> None:
        check_at_least("context", self.context, 0, " pieces")

    def __call__(self, docs: Iterable[Doc]) -> list[list[Span]]:
        """The spans without context, like any span getter."""
        return self.spans(docs)


def context_of(get_spans: SpanGetter) -> int:
    """The pieces of context on each side of a span getter's spans."""
    return get_spans.context if isinstance(get_spans, ContextSpans) else 0


def create_context_spans_v1(context: int = 64, spans: SpanGetter | None = None) -> SpanGetter:
    """Create a span getter whose spans see the document around them.

    Pieces on both sides are computed too, and the vectors of their tokens come from the windows in which they are not
    context.

    context (int): Pieces on each side.
    spans (Callable | None): A registered span getter whose spans cover each document, one after the other, such as
        "spacy-transformers.doc_spans.v1". None: sentences.
    RAISES (SettingError): The context is not a whole number of at least 0.
    """
    return ContextSpans(spans or sentence_spans, context)


def sentence_spans(docs: Iterable[Doc]) -> list[list[Span]]:
    """The sentences of documents.

    RAISES (SettingError): A document has no sentence boundaries.
    """
    try:
        return [list(doc.sents) for doc in docs]
    except ValueError as error:
        raise SettingError(
            "a document has no sentence boundaries, but sentences are needed for context_spans. Put a component that "
            'sets them, such as "sentencizer", before the transformer, and for training name it in '
            "annotating_components of [training]; or give context_spans other spans."
        ) from error


def check_cover(docs: Sequence[Doc], spans: Sequence[Sequence[Span]]) -> None:
    """Check that spans cover their documents, so that each token has exactly one window in which it is not context.

    RAISES (SettingError): The spans of a document leave a gap or overlap.
    """
    for doc, own_spans in zip(docs, spans, strict=True):
        place = 0
        for span in own_spans:
            if span.start != place:
                break
            place = span.end
        else:
            if place == len(doc):
                continue
        raise SettingError(
            f"spans with context must cover each document, one after the other: those of {doc.text[:60]!r} leave out "
            f"or repeat what follows its token {place}. Give strided_spans a stride that equals its window, or set "
            f"context = 0."
        )
