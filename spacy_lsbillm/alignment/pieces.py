"""Word pieces of documents, and their alignment with spaCy's tokens by character offsets."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from spacy.tokens import Doc, Span
from transformers import PreTrainedTokenizerFast

SpanGetter = Callable[[Iterable[Doc]], list[list[Span]]]


@dataclass(frozen=True)
class SpecialPieces:
    """What the tokenizer puts before and after a text, such as LLaMA's start token. Each window gets them."""

    prefix: np.ndarray
    suffix: np.ndarray

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> "SpecialPieces":
        """Found by asking, as tokenizers have no common way to tell."""
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        full = tokenizer("a", add_special_tokens=True)["input_ids"]
        start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        return cls(np.array(full[:start], dtype=np.int64), np.array(full[start + len(bare) :], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.prefix) + len(self.suffix)


@dataclass(frozen=True)
class Pieces:
    """The pieces of a batch of documents, one span after the other.

    ids (ndarray): Vocabulary ids, shape (pieces,).
    starts (ndarray), ends (ndarray): Characters of each piece, counted through the batch, shape (pieces,). Documents
        are one character apart in this count.
    lengths (ndarray): Pieces a span, shape (spans,).
    """

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    lengths: np.ndarray


def cut_pieces(tokenizer: PreTrainedTokenizerFast, docs: Sequence[Doc], get_spans: SpanGetter) -> Pieces:
    """Cut the spans of documents into pieces, all in one call of the tokenizer, without special tokens."""
    spans = [span for doc_spans in get_spans(docs) for span in doc_spans]
    bases = dict(zip(map(id, docs), _doc_bases(docs), strict=True))
    if not spans:
        none = np.zeros(0, dtype=np.int64)
        return Pieces(none, none, none, none)
    encoded = tokenizer(
        [span.text for span in spans], add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    lengths = np.fromiter(map(len, encoded["input_ids"]), dtype=np.int64, count=len(spans))
    ids = np.fromiter(chain.from_iterable(encoded["input_ids"]), dtype=np.int64, count=lengths.sum())
    offsets = np.array(list(chain.from_iterable(encoded["offset_mapping"])), dtype=np.int64).reshape(-1, 2)
    shift = np.repeat([bases[id(span.doc)] + span.start_char for span in spans], lengths)
    return Pieces(ids, offsets[:, 0] + shift, offsets[:, 1] + shift, lengths)


def align(docs: Sequence[Doc], pieces: Pieces) -> tuple[np.ndarray, np.ndarray]:
    """Which pieces belong to which token: those that share a character with it.

    RETURNS (tuple): The pieces' numbers, token by token, shape (pairs,); and how many each token has, shape (tokens,),
        the tokens counted through the batch.
    """
    bases = _doc_bases(docs)
    spread = [doc.to_array(["IDX", "LENGTH"]).astype(np.int64).reshape(-1, 2) for doc in docs]
    positions = np.concatenate([array + np.array([base, 0]) for array, base in zip(spread, bases, strict=True)])
    token_starts = positions[:, 0]
    token_ends = token_starts + positions[:, 1]
    first = np.searchsorted(token_ends, pieces.starts, side="right")
    last = np.searchsorted(token_starts, pieces.ends, side="left")
    counts = np.where(pieces.ends > pieces.starts, np.maximum(last - first, 0), 0)
    # A piece that covers several tokens stands once for each of them.
    of_piece = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(of_piece)) - np.repeat(np.cumsum(counts) - counts, counts)
    of_token = np.repeat(first, counts) + within
    return of_piece[np.argsort(of_token, kind="stable")], np.bincount(of_token, minlength=len(token_starts))


def _doc_bases(docs: Sequence[Doc]) -> np.ndarray:
    """Where each document's characters start in a count through the batch."""
    sizes = np.array([0, *(_size(doc) + 1 for doc in docs)], dtype=np.int64)
    return np.cumsum(sizes)[:-1]


def _size(doc: Doc) -> int:
    """Characters of a document, without building its text."""
    if not len(doc):
        return 0
    last = doc[-1]
    return last.idx + len(last) + len(last.whitespace_)
