"""Overlapping windows over long sequences of pieces."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Windows:
    """What the model sees at once. All arrays have the shape (windows,) and count pieces through the batch.

    starts, ends: The pieces that a window holds.
    keep_starts, keep_ends: Those whose states are taken from it. Each piece is kept from exactly one window: of two
        that overlap, the one in which it stands further from the edge; of two spans' windows, that of its own span.
    """

    starts: np.ndarray
    ends: np.ndarray
    keep_starts: np.ndarray
    keep_ends: np.ndarray


def cut_windows(
    lengths: np.ndarray, size: int, overlap: int, before: np.ndarray | int = 0, after: np.ndarray | int = 0
) -> Windows:
    """Cover spans of pieces with windows: as few as will do, of equal length, so that no piece is in two of them that
    need not be.

    lengths (ndarray): Pieces a span, shape (spans,).
    size (int): Pieces a window, special ones not counted.
    overlap (int): Pieces that two neighbours share at the least, below `size`, and not below `before` + `after`.
    before (ndarray | int), after (ndarray | int): Pieces around a span that its first and last window hold and do not
        keep, shape (spans,).
    """
    before, after = (np.broadcast_to(around, lengths.shape) for around in (before, after))
    seen = lengths + before + after
    step = size - overlap
    counts = np.where(seen > size, -(-(seen - size) // step) + 1, (lengths > 0).astype(np.int64))
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    length = np.repeat(seen, counts)
    base = np.repeat(np.cumsum(lengths) - lengths - before, counts)
    of = np.repeat(counts, counts)
    even = -(-(length + (of - 1) * overlap) // np.maximum(of, 1))
    starts = number * (length - even) // np.maximum(of - 1, 1)
    ends = starts + even
    first = number == 0
    last = number == of - 1
    ended = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    middle = (starts + ended) // 2
    keep_starts = np.where(first, np.repeat(before, counts), middle)
    following = np.concatenate([keep_starts[1:], [0]]) if len(ends) else ends
    keep_ends = np.where(last, length - np.repeat(after, counts), following)
    return Windows(starts + base, ends + base, keep_starts + base, keep_ends + base)
