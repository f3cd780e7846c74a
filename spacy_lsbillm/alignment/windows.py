"""Overlapping windows over long sequences of pieces."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Windows:
    """The pieces that the model processes together.

    All arrays have the shape (windows,) and count pieces through the batch.

    starts, ends: The pieces in a window.
    keep_starts, keep_ends: The pieces whose states are taken from it. Each piece is taken from exactly one window: of
        two that overlap, the one in which it is further from the edge; of windows of two spans, that of its own span.
    """

    starts: np.ndarray
    ends: np.ndarray
    keep_starts: np.ndarray
    keep_ends: np.ndarray


def cut_windows(
    lengths: np.ndarray, size: int, overlap: int, before: np.ndarray | int = 0, after: np.ndarray | int = 0
) -> Windows:
    """Cover spans of pieces with windows: as few as possible, of equal length, with as little overlap as possible.

    lengths (ndarray): Pieces per span, shape (spans,).
    size (int): Pieces per window, without special ones.
    overlap (int): Minimum pieces that neighbouring windows share, below `size`, and at least `before` + `after`.
    before (ndarray | int), after (ndarray | int): Pieces of context around a span that its first and last window hold
        but do not keep, shape (spans,).
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
