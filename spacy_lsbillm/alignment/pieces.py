"""Word pieces of documents, and their alignment with spaCy's tokens by character offsets."""

import ctypes
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from spacy.tokens import Doc, Span
from transformers import PreTrainedTokenizerFast

from ..errors import SettingError
from .context import SpanGetter, check_cover, context_of
from .white_space import TEXT, Shown, code_points, is_white, show

# After a tokenizer call with more pieces than this, memory is returned to the system.
MANY_PIECES = 100_000


@dataclass(frozen=True)
class SpecialPieces:
    """The pieces that the tokenizer puts before and after a text, such as LLaMA's start token.

    Each window gets them.
    """

    prefix: np.ndarray
    suffix: np.ndarray

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast, add_bos_token: bool | None = None) -> "SpecialPieces":
        """Find the special pieces by tokenizing a text, as tokenizers have no common interface for them.

        add_bos_token (bool | None): Whether a text begins with the tokenizer's start token, whatever the tokenizer's
            own default is. None: the tokenizer's default.
        RAISES (SettingError): The tokenizer has no start token.
        """
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        full = tokenizer("a", add_special_tokens=True)["input_ids"]
        start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        prefix, suffix = full[:start], full[start + len(bare) :]
        if add_bos_token is not None:
            begin = tokenizer.bos_token_id
            if begin is None:
                raise SettingError(
                    f"add_bos_token = {str(add_bos_token).lower()} is not allowed with this base: its tokenizer has no "
                    f'start token. Leave it null, or name one as "bos_token" in the base\'s tokenizer_config.json.'
                )
            prefix = [begin] * add_bos_token + [piece for piece in prefix if piece != begin]
        return cls.from_lists(prefix, suffix)

    @classmethod
    def from_lists(cls, prefix: Sequence[int], suffix: Sequence[int]) -> "SpecialPieces":
        """The special pieces with the given vocabulary ids."""
        return cls(np.array(prefix, dtype=np.int64), np.array(suffix, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.prefix) + len(self.suffix)


@dataclass(frozen=True)
class Pieces:
    """The pieces of a batch of documents, one span after the other.

    ids (ndarray): Vocabulary ids, shape (pieces,).
    starts (ndarray), ends (ndarray): The characters of each piece, counted through the batch, with one character
        between documents; shape (pieces,). Pieces may overlap, and one that stands for no character is empty.
    lengths (ndarray): Pieces per span, shape (spans,).
    before (ndarray | int), after (ndarray | int): Pieces of context on both sides of a span, shape (spans,).
    """

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    lengths: np.ndarray
    before: np.ndarray | int = 0
    after: np.ndarray | int = 0


def cut_pieces(
    tokenizer: PreTrainedTokenizerFast, docs: Sequence[Doc], get_spans: SpanGetter, white_space: str = TEXT
) -> Pieces:
    """Cut the spans of documents into pieces, all in one call of the tokenizer, without special tokens.

    Spans with context are cut out of the pieces of their document.

    white_space (str): How white space is shown to the tokenizer, see `show`.
    RETURNS (Pieces): With the tokenizer's characters, gaps closed.
    RAISES (SettingError): Spans with context do not cover the documents.
    """
    spans, context = get_spans(docs), context_of(get_spans)
    if not context:
        return _cut_spans(tokenizer, docs, spans, white_space)
    check_cover(docs, spans)
    whole = _cut_spans(tokenizer, docs, [[doc[:]] for doc in docs], white_space)
    return _in_context(whole, docs, spans, context)


def _in_context(whole: Pieces, docs: Sequence[Doc], spans: Sequence[Sequence[Span]], context: int) -> Pieces:
    """Divide the pieces of whole documents among spans that cover them.

    A piece that crosses from one span into the next belongs to the next.
    """
    doc_ends = np.cumsum(whole.lengths)
    doc_starts = doc_ends - whole.lengths
    of_doc = np.repeat(np.arange(len(docs)), [len(own_spans) for own_spans in spans])
    begins = [span.start_char for own_spans in spans for span in own_spans]
    chars = doc_bases(docs)[of_doc] + np.array(begins, dtype=np.int64)
    starts = np.searchsorted(np.maximum.accumulate(whole.ends), chars, side="right")
    first = np.diff(of_doc, prepend=-1) > 0
    starts = np.where(first, doc_starts[of_doc], np.minimum(starts, doc_ends[of_doc]))
    last = np.append(first[1:], True)
    ends = np.where(last, doc_ends[of_doc], np.append(starts[1:], 0))
    before, after = starts - doc_starts[of_doc], doc_ends[of_doc] - ends
    return replace(whole, lengths=ends - starts, before=np.minimum(before, context), after=np.minimum(after, context))


def _cut_spans(
    tokenizer: PreTrainedTokenizerFast, docs: Sequence[Doc], spans_of: Sequence[Sequence[Span]], white_space: str
) -> Pieces:
    spans: list[Span] = []
    shifts: list[int] = []
    # By position, as the same document may occur twice in a batch.
    for base, doc_spans in zip(doc_bases(docs).tolist(), spans_of, strict=True):
        spans.extend(doc_spans)
        shifts.extend(base + span.start_char for span in doc_spans)
    if not spans:
        none = np.zeros(0, dtype=np.int64)
        return Pieces(none, none, none, none)
    texts = [span.text for span in spans]
    shown = [show(text, white_space) for text in texts]
    encoded = tokenizer(
        [one.text for one in shown], add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    lengths = np.fromiter(map(len, encoded["input_ids"]), dtype=np.int64, count=len(spans))
    ids = np.fromiter(chain.from_iterable(encoded["input_ids"]), dtype=np.int64, count=lengths.sum())
    offsets = np.array(list(chain.from_iterable(encoded["offset_mapping"])), dtype=np.int64).reshape(-1, 2)
    del encoded
    # Counted through the texts, with one character between them.
    text_starts = np.cumsum([0, *(len(text) + 1 for text in texts)])[:-1]
    offsets = _in_the_text(shown, offsets, lengths)
    starts, ends = _close_gaps(texts, *(offsets + np.repeat(text_starts, lengths)[:, None]).T)
    shift = np.repeat(np.array(shifts, dtype=np.int64) - text_starts, lengths)
    if len(ids) > MANY_PIECES:
        _return_memory()
    return Pieces(ids, starts + shift, ends + shift, lengths)


def _in_the_text(shown: Sequence[Shown], offsets: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Map characters of the texts as shown to the tokenizer to characters of the original texts.

    offsets (ndarray): Start and end of each piece, shape (pieces, 2).
    lengths (ndarray): Pieces per text, shape (texts,).
    """
    ends = np.cumsum(lengths)
    for one, start, end in zip(shown, ends - lengths, ends, strict=True):
        if one.places is not None:
            offsets[start:end] = one.places[offsets[start:end]]
    return offsets


def _return_memory() -> None:
    """Return freed memory to the system.

    glibc keeps what a tokenizer frees, as it is in small blocks: 350 MB after a text of a million words.
    """
    if sys.platform == "linux":
        # Other C libraries lack this function.
        with suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _close_gaps(texts: Sequence[str], starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Assign characters that no piece covers to a neighbouring piece.

    Such gaps have two causes. A normaliser that composes characters (NFC, NFKC) leaves the combining ones, now part of
    another character, without a piece: they are assigned to the pieces of the character before them. Some tokenizers
    (`trim_offsets`) and normalisers skip spaces: these are assigned to the pieces that start right after them, as in
    tokenizers that include spaces.

    texts (Sequence): Counted as if joined by one character.
    starts (ndarray), ends (ndarray): Characters of each piece, shape (pieces,).
    RETURNS (tuple): New starts and ends.
    """
    joined = "\n".join(texts)
    covered = _covered(len(joined), starts, ends)
    covered[np.cumsum([len(text) + 1 for text in texts[:-1]], dtype=np.int64) - 1] = True
    if covered.all():
        return starts, ends
    space = is_white(code_points(joined))
    before_gap = np.flatnonzero(covered | ~space)
    after_gap = np.append(np.flatnonzero(covered | space), len(joined))
    # A start moves back to the last character that is not a lost space, an end forward to the first that is not a lost
    # mark.
    new_starts = np.append(-1, before_gap)[np.searchsorted(before_gap, starts)] + 1
    new_ends = np.where(ends > starts, after_gap[np.searchsorted(after_gap, ends)], ends)
    return new_starts, new_ends


def _covered(size: int, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Whether a piece covers each character. RETURNS (ndarray): Shape (size,), boolean."""
    change = np.bincount(starts, minlength=size + 1) - np.bincount(ends, minlength=size + 1)
    return np.cumsum(change)[:size] > 0


def align(docs: Sequence[Doc], pieces: Pieces) -> tuple[np.ndarray, np.ndarray]:
    """Find the pieces of each token: those that share a character with it.

    A piece that covers only the space between two tokens belongs to none, as its state would dilute their means.

    RETURNS (tuple): The pieces' numbers, token by token, shape (pairs,); and the number of pieces per token, shape
        (tokens,), the tokens counted through the batch.
    """
    bases = doc_bases(docs)
    spread = [doc.to_array(["IDX", "LENGTH"]).astype(np.int64).reshape(-1, 2) for doc in docs]
    none = np.zeros((0, 2), dtype=np.int64)
    positions = np.concatenate(
        [none, *(array + np.array([base, 0]) for array, base in zip(spread, bases, strict=True))]
    )
    token_starts = positions[:, 0]
    token_ends = token_starts + positions[:, 1]
    first = np.searchsorted(token_ends, pieces.starts, side="right")
    last = np.searchsorted(token_starts, pieces.ends, side="left")
    counts = np.where(pieces.ends > pieces.starts, np.maximum(last - first, 0), 0)
    # A piece that covers several tokens is listed once for each of them.
    of_piece = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(of_piece)) - np.repeat(np.cumsum(counts) - counts, counts)
    of_token = np.repeat(first, counts) + within
    return of_piece[np.argsort(of_token, kind="stable")], np.bincount(of_token, minlength=len(token_starts))


def doc_bases(docs: Sequence[Doc]) -> np.ndarray:
    """The start of each document in a character count through the batch."""
    sizes = np.array([0, *(_size(doc) + 1 for doc in docs)], dtype=np.int64)
    return np.cumsum(sizes)[:-1]


def _size(doc: Doc) -> int:
    """The number of characters of a document, without building its text."""
    if not len(doc):
        return 0
    last = doc[-1]
    return last.idx + len(last) + len(last.whitespace_)
