"""Windows of similar length in padded micro-batches, and the way back from their states to tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from spacy.tokens import Doc
from transformers import PreTrainedTokenizerFast

from .pieces import SpanGetter, SpecialPieces, align, cut_pieces, doc_bases
from .windows import Windows, cut_windows


@dataclass(frozen=True)
class MicroBatch:
    """What goes through the model at once.

    ids (ndarray): Padded on the right, shape (windows, length).
    mask (ndarray): 1 for a piece, 0 for padding, shape (windows, length).
    """

    ids: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Batch:
    """A batch of documents as the backbone takes it, and how its states become token vectors.

    micro_batches (list): Together they hold each window once.
    ids (ndarray): Vocabulary ids of the documents' pieces, shape (pieces,).
    slot_of_piece (ndarray): The row of each piece in the micro-batches' states, laid one after the other as
        (windows * length, width); shape (pieces,).
    of_piece (ndarray): For each token in turn the numbers of its pieces, shape (pairs,).
    pieces_a_token (ndarray): Shape (tokens,).
    pieces_a_doc (list[int]), tokens_a_doc (list[int]): One entry a document.
    """

    micro_batches: list[MicroBatch]
    ids: np.ndarray
    slot_of_piece: np.ndarray
    of_piece: np.ndarray
    pieces_a_token: np.ndarray
    pieces_a_doc: list[int]
    tokens_a_doc: list[int]

    @property
    def slots(self) -> np.ndarray:
        """For each token in turn the rows of its pieces in the states, shape (pairs,)."""
        return self.slot_of_piece[self.of_piece]


def make_batch(
    tokenizer: PreTrainedTokenizerFast,
    special: SpecialPieces,
    docs: Sequence[Doc],
    get_spans: SpanGetter,
    *,
    window: int,
    overlap: int,
    max_items: int,
    pass_cost: int,
) -> Batch:
    """Cut documents into pieces, the pieces into windows, and sort the windows into micro-batches by length.

    window (int): Pieces a window, special ones counted.
    overlap (int): Pieces that neighbouring windows share at the least.
    max_items (int): Pieces a micro-batch, padding counted; a single window may exceed it.
    pass_cost (int): What a pass through the model costs beside its pieces, in pieces.
    """
    pieces = cut_pieces(tokenizer, docs, get_spans)
    windows = cut_windows(pieces.lengths, window - len(special), overlap)
    micro_batches, slot_of = _micro_batches(pieces.ids, windows, special, max_items, pass_cost)
    of_piece, counts = align(docs, pieces)
    of_doc = np.searchsorted(doc_bases(docs), pieces.starts, side="right") - 1
    return Batch(
        micro_batches,
        pieces.ids,
        slot_of,
        of_piece,
        counts,
        pieces_a_doc=np.bincount(of_doc, minlength=len(docs)).tolist(),
        tokens_a_doc=[len(doc) for doc in docs],
    )


def _micro_batches(
    ids: np.ndarray, windows: Windows, special: SpecialPieces, max_items: int, pass_cost: int
) -> tuple[list[MicroBatch], np.ndarray]:
    """The micro-batches, longest windows first, and the row of each piece in their states."""
    head = len(special.prefix)
    lengths = windows.ends - windows.starts
    order = np.argsort(-lengths, kind="stable")
    slot_of = np.zeros(len(ids), dtype=np.int64)
    micro_batches = []
    base = 0
    for rows in _rows(order, lengths + len(special), max_items, pass_cost):
        width = int(lengths[rows[0]]) + len(special)
        size = lengths[rows, None]
        column = np.arange(width) - head
        inside = (column >= 0) & (column < size)
        piece = np.where(inside, windows.starts[rows, None] + column, 0)
        block = np.where(inside, ids[piece], 0)
        block[:, :head] = special.prefix
        tail = head + size + np.arange(len(special.suffix))
        np.put_along_axis(block, tail, np.broadcast_to(special.suffix, tail.shape), axis=1)
        kept = inside & (piece >= windows.keep_starts[rows, None]) & (piece < windows.keep_ends[rows, None])
        slot_of[piece[kept]] = base + np.flatnonzero(kept)
        micro_batches.append(MicroBatch(block, (np.arange(width) < size + len(special)).astype(np.int64)))
        base += block.size
    return micro_batches, slot_of


def _rows(order: np.ndarray, lengths: np.ndarray, max_items: int, pass_cost: int) -> Iterator[np.ndarray]:
    """The windows of each micro-batch. `order` has the longest first."""
    if not len(order):
        return
    sizes, counts = np.unique(-lengths[order], return_counts=True)
    for start, end in group_by_length(-sizes, counts, pass_cost):
        for first in range(start, end, most := max(1, int(max_items // lengths[order[start]]))):
            yield order[first : min(first + most, end)]


def group_by_length(sizes: np.ndarray, counts: np.ndarray, pass_cost: int) -> list[tuple[int, int]]:
    """Split windows, sorted by length, into groups that are padded to their longest, at the least total cost: padded
    pieces, and `pass_cost` for each group. Dynamic programming over the different lengths.

    sizes (ndarray): Different lengths, the largest first, shape (sizes,).
    counts (ndarray): Windows of each, shape (sizes,).
    RETURNS (list): Start and end of each group, counted in windows.
    """
    before = np.concatenate([[0], np.cumsum(counts)])
    best = np.zeros(len(sizes) + 1)
    start_of = np.zeros(len(sizes) + 1, dtype=np.int64)
    for end in range(1, len(sizes) + 1):
        costs = best[:end] + sizes[:end] * (before[end] - before[:end]) + pass_cost
        start_of[end] = np.argmin(costs)
        best[end] = costs[start_of[end]]
    groups = []
    end = len(sizes)
    while end:
        groups.append((int(before[start_of[end]]), int(before[end])))
        end = int(start_of[end])
    return groups[::-1]
