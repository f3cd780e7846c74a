"""How a base's tokenizer cuts a corpus: pieces per token, windows, padding, and spans that end inside a piece."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from spacy.tokens import Doc, Span
from spacy.util import minibatch
from transformers import PreTrainedTokenizerFast

from .batches import make_batch
from .context import SpanGetter
from .pieces import Pieces, SpecialPieces, align, cut_pieces
from .windows import cut_windows

N_EXAMPLES = 5


@dataclass(frozen=True)
class CutSettings:
    """How documents are cut into pieces and windows, and batched.

    tokenizer (PreTrainedTokenizerFast): The base's tokenizer.
    special (SpecialPieces): The pieces that it puts around a text.
    get_spans (SpanGetter): The parts of documents that are tokenised separately.
    window (int), overlap (int): In pieces; `window` includes the special ones.
    batch_size (int): Documents per batch.
    white_space (str): How white space is shown to the tokenizer.
    max_items (int): Maximum pieces per forward pass.
    pass_cost (int): The fixed cost of a forward pass, in pieces.
    row (int): Short windows share rows of this many pieces; 0: each has its own row.
    without_embedding (tuple[str, ...]): Added words for which the base has no embedding. They are removed from
        `tokenizer`.
    repeat (int): Copies of a window's pieces before the ones whose states are used.
    """

    tokenizer: PreTrainedTokenizerFast
    special: SpecialPieces
    get_spans: SpanGetter
    window: int
    overlap: int
    batch_size: int
    white_space: str
    max_items: int
    pass_cost: int
    row: int
    without_embedding: tuple[str, ...] = ()
    repeat: int = 0


@dataclass
class SpanBoundaries:
    """The starts and ends of annotated spans, and how many are inside a piece that covers several tokens.

    The tokens on both sides of such a boundary get the state of the same piece, so that they cannot be distinguished
    there.
    """

    spans: int = 0
    boundaries: int = 0
    inside: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class PieceStatistics:
    """Totals over a corpus. `add` adds a batch.

    pieces_per_token (ndarray): The number of tokens with 0, 1, 2 … pieces. A piece that covers several tokens counts
        for each.
    pieces (int): The number of pieces, without special ones.
    longest_token (str): The token with the most pieces.
    without_pieces, unknown (Counter): Texts of tokens without a piece, and of pieces with the unknown id.
    without_embedding (Counter): Added words for which the base has no embedding.
    longest_doc (int): Pieces of the longest document.
    long_docs (int): Documents with a part that is longer than a window.
    long_doc_windows (int): The number of windows in those documents.
    items, padding (int): Positions in the batches of the model, and how many of them are padding.
    boundaries (dict): `SpanBoundaries` by the place of the spans: "doc.ents", or 'doc.spans["sc"]'.
    """

    docs: int = 0
    pieces: int = 0
    pieces_per_token: np.ndarray = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    longest_token: str = ""
    without_pieces: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    without_embedding: Counter[str] = field(default_factory=Counter)
    longest_doc: int = 0
    long_docs: int = 0
    windows: int = 0
    long_doc_windows: int = 0
    items: int = 0
    padding: int = 0
    boundaries: dict[str, SpanBoundaries] = field(default_factory=dict)

    def add(self, docs: Sequence[Doc], cutting: CutSettings) -> None:
        """Add the counts of a batch of documents to the totals."""
        pieces = cut_pieces(cutting.tokenizer, docs, cutting.get_spans, cutting.white_space)
        of_piece, counts = align(docs, pieces)
        self.docs += len(docs)
        self.pieces += len(pieces.ids)
        self._add_counts(docs, counts)
        self._add_unknown(docs, pieces, cutting.tokenizer.unk_token_id)
        for doc in docs:
            self.without_embedding.update({word: doc.text.count(word) for word in cutting.without_embedding})
        self._add_windows(docs, pieces, cutting)
        self._add_padding(docs, cutting)
        self._add_boundaries(docs, inside_a_piece(of_piece, counts, len(pieces.ids)))

    @property
    def tokens(self) -> int:
        """The number of tokens in the corpus."""
        return int(self.pieces_per_token.sum())

    def quantile(self, share: float) -> int:
        """The number of pieces that at least this fraction of the tokens do not exceed."""
        return int(np.searchsorted(np.cumsum(self.pieces_per_token), share * self.tokens))

    def as_dict(self) -> dict[str, Any]:
        """All statistics as numbers, strings, lists and dicts."""
        tokens, most = self.tokens, len(self.pieces_per_token) - 1
        mean = float(self.pieces_per_token @ np.arange(most + 1)) / tokens if tokens else 0.0
        return {
            "docs": self.docs,
            "tokens": tokens,
            "pieces": self.pieces,
            "pieces_per_token": {
                "mean": round(mean, 4),
                "median": self.quantile(0.5),
                "p95": self.quantile(0.95),
                "max": most,
                "max_token": self.longest_token,
            },
            "tokens_without_pieces": {"count": self.without_pieces.total(), "examples": _most(self.without_pieces)},
            "unknown_pieces": {"count": self.unknown.total(), "examples": _most(self.unknown)},
            "without_embedding": {
                "count": self.without_embedding.total(),
                "examples": _most(+self.without_embedding),
            },
            "longest_doc": self.longest_doc,
            "windows": self.windows,
            "long_docs": {"count": self.long_docs, "windows": self.long_doc_windows},
            "padding_share": round(self.padding / self.items, 4) if self.items else 0.0,
            "boundaries_inside_pieces": {where: asdict(boundaries) for where, boundaries in self.boundaries.items()},
        }

    def _add_counts(self, docs: Sequence[Doc], counts: np.ndarray) -> None:
        if not len(counts):
            return
        if counts.max() > len(self.pieces_per_token) - 1 or not self.longest_token:
            self.longest_token = _token(docs, int(counts.argmax()))
        histogram = np.bincount(counts, minlength=len(self.pieces_per_token))
        histogram[: len(self.pieces_per_token)] += self.pieces_per_token
        self.pieces_per_token = histogram
        self.without_pieces.update(_token(docs, int(i)) for i in np.flatnonzero(counts == 0))

    def _add_unknown(self, docs: Sequence[Doc], pieces: Pieces, unknown: int | None) -> None:
        if unknown is None or not (places := np.flatnonzero(pieces.ids == unknown)).size:
            return
        # Characters of a batch are counted with one between documents, as in `Pieces`.
        text = "\n".join(doc.text for doc in docs)
        self.unknown.update(text[pieces.starts[i] : pieces.ends[i]].strip() for i in places)

    def _add_windows(self, docs: Sequence[Doc], pieces: Pieces, cutting: CutSettings) -> None:
        lengths, size = pieces.lengths, cutting.window - len(cutting.special)
        windows = cut_windows(lengths, size, cutting.overlap, pieces.before, pieces.after)
        span_starts = np.cumsum(lengths) - lengths
        # Of spans that begin at the same piece all but the last are empty, and `side="right"` finds the last.
        of_window = np.searchsorted(span_starts, windows.keep_starts, side="right") - 1
        windows_per_span = np.bincount(of_window, minlength=len(lengths))
        doc_of_span = np.repeat(np.arange(len(docs)), [len(spans) for spans in cutting.get_spans(docs)])
        pieces_per_doc = np.bincount(doc_of_span, weights=lengths, minlength=len(docs))
        windows_per_doc = np.bincount(doc_of_span, weights=windows_per_span, minlength=len(docs))
        long = np.bincount(doc_of_span, weights=windows_per_span > 1, minlength=len(docs)) > 0
        self.windows += len(windows.starts)
        self.longest_doc = max(self.longest_doc, int(pieces_per_doc.max(initial=0)))
        self.long_docs += int(long.sum())
        self.long_doc_windows += int(windows_per_doc[long].sum())

    def _add_padding(self, docs: Sequence[Doc], cutting: CutSettings) -> None:
        batch = make_batch(
            cutting.tokenizer,
            cutting.special,
            docs,
            cutting.get_spans,
            window=cutting.window,
            overlap=cutting.overlap,
            max_items=cutting.max_items,
            pass_cost=cutting.pass_cost,
            row=cutting.row,
            white_space=cutting.white_space,
            repeat=cutting.repeat,
        )
        self.items += sum(part.mask.size for part in batch.micro_batches)
        self.padding += sum(int((part.mask == 0).sum()) for part in batch.micro_batches)

    def _add_boundaries(self, docs: Sequence[Doc], inside: np.ndarray) -> None:
        first = 0
        for doc in docs:
            groups = {"doc.ents": doc.ents, **{f'doc.spans["{key}"]': group for key, group in doc.spans.items()}}
            for where, spans in groups.items():
                self._add_spans(self.boundaries.setdefault(where, SpanBoundaries()), list(spans), inside, first)
            first += len(doc)

    def _add_spans(self, boundaries: SpanBoundaries, spans: list[Span], inside: np.ndarray, first: int) -> None:
        if not spans:
            return
        hits = inside[first + np.array([(span.start, span.end) for span in spans])]
        boundaries.spans += len(spans)
        boundaries.boundaries += hits.size
        boundaries.inside += int(hits.sum())
        for i in np.flatnonzero(hits.any(1))[: N_EXAMPLES - len(boundaries.examples)]:
            boundaries.examples.append(f"{spans[i].text} [{spans[i].label_}]")


def count_pieces(docs: Iterable[Doc], cutting: CutSettings) -> PieceStatistics:
    """The statistics of a corpus, read once, batch by batch."""
    statistics = PieceStatistics()
    for batch in minibatch(docs, cutting.batch_size):
        statistics.add(list(batch), cutting)
    return statistics


def inside_a_piece(of_piece: np.ndarray, counts: np.ndarray, n_pieces: int) -> np.ndarray:
    """Find the boundaries between tokens that are inside a piece.

    of_piece (ndarray), counts (ndarray): What `align` returns: pieces token by token, and the number per token.
    RETURNS (ndarray): For each token whether its start is such a boundary, and false at the end, shape (tokens + 1,).
    """
    of_token = np.repeat(np.arange(len(counts)), counts)
    first = np.full(n_pieces, len(counts))
    last = np.full(n_pieces, -1)
    np.minimum.at(first, of_piece, of_token)
    np.maximum.at(last, of_piece, of_token)
    several = last > first
    # A piece is open from its second token on, and no longer after its last.
    change = np.bincount(first[several] + 1, minlength=len(counts) + 1) - np.bincount(
        last[several] + 1, minlength=len(counts) + 1
    )
    return np.cumsum(change) > 0


def _token(docs: Sequence[Doc], number: int) -> str:
    """The text of a token, counted through a batch."""
    for doc in docs:
        if number < len(doc):
            return doc[number].text
        number -= len(doc)
    raise IndexError(f"there is no token {number} in the batch.")


def _most(texts: Counter[str]) -> list[str]:
    return [text for text, _ in texts.most_common(N_EXAMPLES)]
