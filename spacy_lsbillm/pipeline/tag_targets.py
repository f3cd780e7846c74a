"""What is known of the tags of a batch: tags, and shares where a token may have one of several."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..tagging import Scheme
from ..tagging.scheme import MISSING
from .soft_tags import SoftTags

# A teacher for whom all that the annotation leaves open is less probable than this in sum says nothing of a token.
LEAST = 1e-6


@dataclass(frozen=True)
class Taught:
    """What a teacher says of the tags of all tokens of a batch.

    shares (ndarray[float32]): The probability of each tag; 0 for tags that it does not know; shape (tokens, tags).
    knows (ndarray[bool]): The labels that it knows, shape (labels,).
    """

    shares: np.ndarray
    knows: np.ndarray


@dataclass(frozen=True)
class SoftTargets:
    """Tokens of which not one tag is known, as `layers.soft_loss` takes them.

    rows (ndarray[int64]): Which tokens of the batch.
    shares (ndarray[float32]): Shape (rows, tags).
    is_open (ndarray[bool]): Shape (rows, tags).
    """

    rows: np.ndarray
    shares: np.ndarray
    is_open: np.ndarray


def soft_targets(rows: np.ndarray, unknown: np.ndarray, scheme: Scheme, taught: Taught | None) -> SoftTargets:
    """A token that is in no gold span has the tag O or one of a label that its document was not annotated for. A
    teacher says how probable each of these is; O from a teacher is O or a label that neither of the two knows.

    rows (ndarray[int64]): Tokens of the batch.
    unknown (ndarray[bool]): The labels that each may have for all that its annotation says, shape (rows, labels).
    taught (Taught | None): None: they are open, all of them.
    """
    # Tags are numbered kind by kind, and O first.
    outside = np.ones((len(rows), 1), dtype=bool)
    possible = np.concatenate([outside, *[unknown] * len(scheme.kinds)], axis=1)
    if taught is None:
        return SoftTargets(rows, np.zeros(possible.shape, dtype=np.float32), possible)
    shares = taught.shares[rows] * possible
    total = shares.sum(axis=1, keepdims=True)
    shares = np.where(total >= LEAST, shares / np.maximum(total, LEAST), 0.0).astype(np.float32)
    shares[:, 0] = 0.0
    is_open = np.concatenate([outside, *[unknown & ~taught.knows] * len(scheme.kinds)], axis=1)
    return SoftTargets(rows, shares, is_open)


def free_of_gold(truth: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """The tokens that are in no gold span and of which something is not known.

    truth (ndarray[int]): The number of each token's tag, shape (tokens,).
    unknown (ndarray[bool]): Shape (tokens, labels).
    RETURNS (ndarray[bool]): Shape (tokens,).
    """
    return (truth == MISSING) | ((truth == 0) & unknown.any(axis=1))


def told_targets(told: Sequence[tuple[int, SoftTags]]) -> SoftTargets:
    """What another head has told of documents, as the whole truth.

    told (Sequence[tuple[int, SoftTags]]): Each with the number of its first token in the batch; one at least.
    """
    rows = np.concatenate([first + np.flatnonzero(tags.counts) for first, tags in told])
    shares = np.concatenate([tags.shares() for _, tags in told])
    return SoftTargets(rows, shares, np.zeros(shares.shape, dtype=bool))
