"""Recursions over long documents without a Python step per token.

Documents are cut into chunks of `CHUNK` tokens, which are processed side by side.

The state at the start of a chunk is first guessed. Chunks with a wrong guess are processed again with the end state of
their neighbour, until all agree. A chunk soon forgets its initial state, so that two rounds are typical; in any case
the k-th chunk of a document is right after k rounds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CHUNK = 64
# Two states at the start of a chunk count as equal if they differ by less than this.
NEAR, NOTHING = 1e-9, 1e-30


@dataclass(frozen=True)
class Chunks:
    """Parts of documents, in order.

    first (ndarray[int64]), last (ndarray[int64]): The first and last token of each chunk.
    document (ndarray[int64]): The number of its document.
    """

    first: np.ndarray
    last: np.ndarray
    document: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens in each chunk, shape (chunks,)."""
        return self.last - self.first + 1

    def order(self, backwards: bool) -> tuple[np.ndarray, np.ndarray]:
        """The order in which chunks are read, and whether each continues the document of the one read before it."""
        numbers = np.arange(len(self.first))[:: -1 if backwards else 1]
        return numbers, np.append(False, np.diff(self.document[numbers]) == 0)

    def of_documents(self, chosen: np.ndarray) -> "Chunks":
        """The chunks of some documents, which are numbered anew.

        chosen (ndarray[bool]): True for documents to keep.
        """
        kept = chosen[self.document]
        return Chunks(self.first[kept], self.last[kept], (np.cumsum(chosen) - 1)[self.document[kept]])


def cut(lengths: np.ndarray) -> Chunks:
    """Cut documents into chunks; empty documents have none.

    lengths (ndarray[int]): Tokens per document.
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
    """Normalised weights of the states of a recursion, such as weights that add up to 1.

    entered (ndarray[float64]), left (ndarray[float64]): Weights at the start and the end of each chunk; shape (chunks,
        states).
    scale (ndarray[float64]): The logarithm of the normalisation within each chunk; shape (chunks,).
    """

    entered: np.ndarray
    left: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, entered: np.ndarray) -> "States":
        """The states before anything was read.

        entered (ndarray[float64]): The weights at the start of documents, and a guess for the other chunks.
        """
        return cls(entered, np.empty_like(entered), np.empty(len(entered)))


def settle(
    chunks: Chunks, states: States, backwards: bool, read: Callable[[np.ndarray], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Read chunks until each starts with the state in which the one before it ended.

    read (Callable): Reads the chunks with the given numbers, from `states.entered` to `states.left` and `states.scale`.
    RETURNS (tuple): For each chunk, the sum of the scales of the chunks of its document that were read before it; and
        for each document, the chunk that is read last.
    """
    order, follows = chunks.order(backwards)
    entered = states.entered
    todo = np.arange(len(order))
    while len(todo):
        read(todo)
        new = entered.copy()
        new[order[1:][follows[1:]]] = states.left[order[:-1][follows[1:]]]
        # Written so that NaN counts as unchanged: otherwise the loop would not end.
        other = np.abs(new - entered) > NEAR * np.abs(new) + NOTHING
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
    """How many of the first chunks have a token at each step.

    lengths (ndarray[int64]): Tokens per chunk, in descending order.
    """
    return np.searchsorted(-lengths, -np.arange(lengths[0]), side="left").tolist()
