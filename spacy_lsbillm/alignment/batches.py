"""Packing windows into rows and rows of similar length into micro-batches, and mapping their states back to tokens."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heapreplace
from itertools import pairwise

import numpy as np
from spacy.tokens import Doc
from transformers import PreTrainedTokenizerFast

from .context import SpanGetter
from .pieces import SpecialPieces, align, cut_pieces, doc_bases
from .white_space import TEXT
from .windows import Windows, cut_windows

# With more rows, the space that the last one leaves is a small part of all.
FEW_ROWS = 32


@dataclass(frozen=True)
class MicroBatch:
    """The input of one forward pass.

    ids (ndarray): Padded on the right, shape (rows, length).
    mask (ndarray): 1 for a piece, 0 for padding, shape (rows, length).
    positions (ndarray | None): The position of each piece in its window, which separates the windows of a row; 0 for
        padding, shape (rows, length). None: each row holds one window, and if `row` is above 0 there is no padding.
    """

    ids: np.ndarray
    mask: np.ndarray
    positions: np.ndarray | None = None


@dataclass(frozen=True)
class RowSums:
    """Which state rows of a micro-batch are summed into which rows of the result.

    slots (ndarray): Rows of the micro-batch's states, flattened to (rows * length, width); shape (pairs,).
    sizes (ndarray): The number of slots that go into each of `targets`, shape (targets,).
    targets (ndarray): Rows of the result, each once, shape (targets,).
    """

    slots: np.ndarray
    sizes: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Batch:
    """A batch of documents as input of the backbone, with the mapping of its states to token vectors.

    micro_batches (list): Together they hold each window once.
    ids (ndarray): Vocabulary ids of the documents' pieces, shape (pieces,).
    slot_of_piece (ndarray): The row of each piece in the concatenated states of the micro-batches, each flattened to
        (windows * length, width); shape (pieces,).
    of_piece (ndarray): The numbers of each token's pieces, token by token, shape (pairs,).
    pieces_per_token (ndarray): The number of pieces per token, shape (tokens,).
    pieces_per_doc (list[int]), tokens_per_doc (list[int]): The numbers of pieces and tokens per document.
    """

    micro_batches: list[MicroBatch]
    ids: np.ndarray
    slot_of_piece: np.ndarray
    of_piece: np.ndarray
    pieces_per_token: np.ndarray
    pieces_per_doc: list[int]
    tokens_per_doc: list[int]

    @property
    def slots(self) -> np.ndarray:
        """The rows of each token's pieces in the states, token by token, shape (pairs,)."""
        return self.slot_of_piece[self.of_piece]

    def sums_of_tokens(self) -> Iterator[RowSums]:
        """For each micro-batch, the states that are summed into token vectors."""
        return self._sums(self.slots, np.repeat(np.arange(len(self.pieces_per_token)), self.pieces_per_token))

    def sums_of_pieces(self) -> Iterator[RowSums]:
        """For each micro-batch, the states that become piece vectors."""
        return self._sums(self.slot_of_piece, np.arange(len(self.ids)))

    def _sums(self, slots: np.ndarray, targets: np.ndarray) -> Iterator[RowSums]:
        """The states that each micro-batch adds to the rows of the result.

        slots (ndarray), targets (ndarray): Pairs of a row of all states and a row of the result, sorted by the former.
        """
        ends = np.cumsum([part.ids.size for part in self.micro_batches])
        part_of = np.searchsorted(ends, slots, side="right")
        order = np.argsort(part_of, kind="stable")
        bounds = np.searchsorted(part_of[order], np.arange(len(ends) + 1))
        for part, (first, last) in enumerate(pairwise(bounds.tolist())):
            chosen = order[first:last]
            summed_targets, sizes = np.unique(targets[chosen], return_counts=True)
            yield RowSums(slots[chosen] - (ends[part] - self.micro_batches[part].ids.size), sizes, summed_targets)


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
    row: int = 0,
    white_space: str = TEXT,
    repeat: int = 0,
) -> Batch:
    """Cut documents into pieces and windows, and pack these into micro-batches.

    Windows are packed into rows, and rows of similar length are grouped into micro-batches.

    window (int): Pieces per window, including special ones.
    overlap (int): Minimum pieces that neighbouring windows share; at least twice the context of `get_spans`.
    max_items (int): Maximum pieces per micro-batch, including padding; a single window may exceed it.
    pass_cost (int): The fixed cost of a forward pass, in pieces.
    row (int): Windows share a row of up to this many pieces. 0: each window has its own row.
    white_space (str): How white space is shown to the tokenizer, see `show`.
    repeat (int): Copies of a window's pieces before the ones whose states are used, in the same window: so a causal
        layer sees the whole window (sequence repetition, arXiv 2601.17585, section 3). Special pieces are not repeated,
        and nothing separates the copies. `window` counts one copy.
    """
    pieces = cut_pieces(tokenizer, docs, get_spans, white_space)
    windows = cut_windows(pieces.lengths, window - len(special), overlap, pieces.before, pieces.after)
    micro_batches, slot_of = _micro_batches(pieces.ids, windows, special, max_items, pass_cost, row, repeat)
    of_piece, counts = align(docs, pieces)
    of_doc = np.searchsorted(doc_bases(docs), pieces.starts, side="right") - 1
    return Batch(
        micro_batches,
        pieces.ids,
        slot_of,
        of_piece,
        counts,
        pieces_per_doc=np.bincount(of_doc, minlength=len(docs)).tolist(),
        tokens_per_doc=[len(doc) for doc in docs],
    )


def _micro_batches(
    ids: np.ndarray,
    windows: Windows,
    special: SpecialPieces,
    max_items: int,
    pass_cost: int,
    row: int,
    repeat: int,
) -> tuple[list[MicroBatch], np.ndarray]:
    """The micro-batches, longest rows first, and the row of each piece in their states."""
    head = len(special.prefix)
    inner = windows.ends - windows.starts
    # All copies of a window's pieces; those of the last copy begin at `last`.
    body, last = inner * (repeat + 1), inner * repeat
    lengths = body + len(special)
    row_of, offsets = pack(lengths, row)
    n_rows = int(row_of.max()) + 1 if len(row_of) else 0
    row_lengths = np.zeros(n_rows, dtype=np.int64)
    np.maximum.at(row_lengths, row_of, offsets + lengths)
    # Windows in the order of their rows, and rows by length.
    rank = np.empty(n_rows, dtype=np.int64)
    rank[np.argsort(-row_lengths, kind="stable")] = np.arange(n_rows)
    order = np.argsort(rank[row_of], kind="stable")
    firsts = np.searchsorted(rank[row_of][order], np.arange(n_rows + 1))
    slot_of = np.zeros(len(ids), dtype=np.int64)
    micro_batches = []
    base = 0
    for start, end in cut_passes(-np.sort(-row_lengths), max_items, pass_cost):
        chosen = order[firsts[start] : firsts[end]]
        width = int(row_lengths[row_of[chosen[0]]])
        sizes = lengths[chosen]
        place = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        window = np.repeat(chosen, sizes)
        cell = (rank[row_of[window]] - start) * width + offsets[window] + place
        column = place - head
        inside = (column >= 0) & (column < body[window])
        piece = windows.starts[window] + column % np.maximum(inner[window], 1)
        block = np.zeros((end - start) * width, dtype=np.int64)
        block[cell[inside]] = ids[piece[inside]]
        block[cell[column < 0]] = special.prefix[place[column < 0]]
        behind = column >= body[window]
        block[cell[behind]] = special.suffix[(column - body[window])[behind]]
        mask = np.zeros_like(block)
        mask[cell] = 1
        positions = np.zeros_like(block)
        positions[cell] = place
        # Only if rows are shared or padded, as transformers builds the mask of positions index by index.
        placed = len(chosen) > end - start or (row > 0 and len(cell) < block.size)
        kept = inside & (column >= last[window])
        kept &= (piece >= windows.keep_starts[window]) & (piece < windows.keep_ends[window])
        slot_of[piece[kept]] = base + cell[kept]
        ids_of, mask_of, positions_of = (cells.reshape(-1, width) for cells in (block, mask, positions))
        micro_batches.append(MicroBatch(ids_of, mask_of, positions_of if placed else None))
        base += block.size
    return micro_batches, slot_of


def pack(lengths: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Assign windows to rows: the longest window that fits goes into the rest of a row.

    Few rows are then filled evenly, because they are padded to the longest of them.

    lengths (ndarray): Pieces per window, shape (windows,).
    row (int): Pieces per row. A longer window gets its own row, of its length.
    RETURNS (tuple): The row of each window and its start in the row, both of shape (windows,).
    """
    short = np.flatnonzero(2 * lengths <= row) if row else np.zeros(0, dtype=np.int64)
    if not len(short):
        return np.arange(len(lengths)), np.zeros(len(lengths), dtype=np.int64)
    row_of, offsets = np.empty(len(lengths), dtype=np.int64), np.zeros(len(lengths), dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    waiting, sizes = order.tolist(), lengths[order].tolist()
    number = longest = 0
    while waiting:
        used = 0
        room = max(row, sizes[-1])
        while (n_fitting := bisect_right(sizes, room - used)) > 0:
            window = waiting.pop(n_fitting - 1)
            row_of[window], offsets[window] = number, used
            used += sizes.pop(n_fitting - 1)
        number, longest = number + 1, max(longest, used)
    if 1 < number <= FEW_ROWS:
        evenly = _spread(lengths, order[::-1].tolist(), number)
        if int((evenly[1] + lengths).max()) < longest:
            return evenly
    return row_of, offsets


def _spread(lengths: np.ndarray, order: list[int], n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Assign windows to a number of rows, each to the row that is the shortest so far.

    order (list[int]): The windows, the longest first (the LPT rule: Graham, 1969, Bounds on multiprocessing timing
        anomalies, section 3).
    RETURNS (tuple): As `pack`.
    """
    row_of, offsets = np.empty(len(lengths), dtype=np.int64), np.empty(len(lengths), dtype=np.int64)
    rows = [(0, number) for number in range(n_rows)]
    for window in order:
        used, number = rows[0]
        row_of[window], offsets[window] = number, used
        heapreplace(rows, (used + int(lengths[window]), number))
    return row_of, offsets


def cut_passes(lengths: np.ndarray, max_items: int, pass_cost: int) -> list[tuple[int, int]]:
    """Split rows, sorted by length, into passes at the lowest total cost, by dynamic programming over the rows.

    The cost is that of padded pieces, each pass being padded to its longest row, plus `pass_cost` per pass.

    lengths (ndarray): Pieces per row, the longest first, shape (rows,).
    max_items (int): Maximum pieces per pass, including padding; a single row may exceed it.
    pass_cost (int): The fixed cost of a pass, in pieces.
    RETURNS (list): Start and end of each pass, counted in rows.
    """
    best = np.zeros(len(lengths) + 1)
    start_of = np.zeros(len(lengths) + 1, dtype=np.int64)
    # The first possible start of a pass that ends at the current row: it never decreases.
    first = 0
    for end in range(1, len(lengths) + 1):
        while first < end - 1 and lengths[first] * (end - first) > max_items:
            first += 1
        costs = best[first:end] + lengths[first:end] * np.arange(end - first, 0, -1)
        chosen = int(np.argmin(costs))
        start_of[end] = first + chosen
        best[end] = costs[chosen] + pass_cost
    passes = []
    end = len(lengths)
    while end:
        passes.append((int(start_of[end]), end))
        end = int(start_of[end])
    return passes[::-1]
