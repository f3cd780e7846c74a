"""Recursions over long documents without a step a token: documents are cut into chunks of `CHUNK` tokens, which go
through side by side.

What there is where a chunk begins is a guess at first; chunks whose guess was wrong are done again with what their
neighbour found, until none is. A chunk soon forgets how it began, so that two rounds are the rule; the k-th chunk of a
document is right after k rounds whatever the scores are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CHUNK = 128
# How near to each other two guesses of a chunk's beginning are the same one.
NEAR, NOTHING = 1e-9, 1e-30


@dataclass(frozen=True)
class Chunks:
    """Pieces of documents, in order.

    first (ndarray[int64]), last (ndarray[int64]): Their first and last tokens.
    document (ndarray[int64]): The number of the document of each.
    """

    first: np.ndarray
    last: np.ndarray
    document: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each."""
        return self.last - self.first + 1

    def order(self, backwards: bool) -> tuple[np.ndarray, np.ndarray]:
        """In which they are read, and whether each goes on with the document of the one that was read before."""
        numbers = np.arange(len(self.first))[:: -1 if backwards else 1]
        return numbers, np.append(False, np.diff(self.document[numbers]) == 0)


def cut(lengths: np.ndarray) -> Chunks:
    """Cut documents; empty ones have none.

    lengths (ndarray[int]): Tokens of each document.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    lengths = lengths[lengths > 0]
    starts = np.cumsum(lengths) - lengths
    counts = -(-lengths // CHUNK)
    document = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = starts[document] + number * CHUNK
    return Chunks(first, np.minimum(first + CHUNK, (starts + lengths)[document]) - 1, document)


@dataclass
class States:
    """Weights of what a recursion is in, which add up to 1.

    entered (ndarray[float64]), left (ndarray[float64]): Where each chunk begins and ends; shape (chunks, states).
    scale (ndarray[float64]): The logarithm of what they were divided by within each chunk; shape (chunks,).
    """

    entered: np.ndarray
    left: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, entered: np.ndarray) -> "States":
        """Before anything was read.

        entered (ndarray[float64]): What there is where documents begin, and a guess for the other chunks.
        """
        return cls(entered, np.empty_like(entered), np.empty(len(entered)))


def settle(
    chunks: Chunks, states: States, backwards: bool, read: Callable[[np.ndarray], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Read chunks until each begins as the one before it ended.

    read (Callable): Reads the chunks with some numbers, from `states.entered` to `states.left` and `states.scale`.
    RETURNS (tuple): Of each chunk, the scales of those of its document that were read before it, added up; and of each
        document, the chunk that is read last.
    """
    order, follows = chunks.order(backwards)
    entered = states.entered
    todo = np.arange(len(order))
    while len(todo):
        read(todo)
        new = entered.copy()
        new[order[1:][follows[1:]]] = states.left[order[:-1][follows[1:]]]
        # Written so that NaN is not another one: it would never settle.
        other = np.abs(new - entered) > NEAR * new + NOTHING
        todo = np.flatnonzero(other.any(axis=1))
        entered[todo] = new[todo]
    added = np.cumsum(states.scale[order])
    earlier = added - states.scale[order]
    begun = np.flatnonzero(~follows)
    of_document = np.repeat(earlier[begun], np.diff(np.append(begun, len(order))))
    before = np.empty(len(order))
    before[order] = earlier - of_document
    last = np.empty(len(begun), dtype=np.int64)
    ended = order[np.append(begun[1:], len(order)) - 1]
    last[chunks.document[ended]] = ended
    return before, last


def active(lengths: np.ndarray) -> list[int]:
    """How many of the first chunks go on at each step.

    lengths (ndarray[int64]): Tokens of each, falling.
    """
    return np.searchsorted(-lengths, -np.arange(lengths[0]), side="left").tolist()
