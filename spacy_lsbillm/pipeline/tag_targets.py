"""The targets for the tags of a batch: single tags, and distributions where a token may have one of several."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..tagging import Scheme
from ..tagging.scheme import MISSING
from .soft_tags import SoftTags

# If the tags that the annotation leaves open are less probable than this in total, a teacher's prediction is ignored.
LEAST = 1e-6


@dataclass(frozen=True)
class Taught:
    """What a teacher predicts for all tokens of a batch.

    shares (ndarray[float32]): The probability of each tag; 0 for tags that it does not know; shape (tokens, tags).
    knows (ndarray[bool]): The labels that it knows, shape (labels,).
    """

    shares: np.ndarray
    knows: np.ndarray


@dataclass(frozen=True)
class SoftTargets:
    """Tokens without a single known tag, as input of `layers.soft_loss`.

    rows (ndarray[int64]): The tokens' numbers in the batch.
    shares (ndarray[float32]): The target distributions, shape (rows, tags).
    is_open (ndarray[bool]): The tags that the annotation leaves open, shape (rows, tags).
    """

    rows: np.ndarray
    shares: np.ndarray
    is_open: np.ndarray


def soft_targets(rows: np.ndarray, unknown: np.ndarray, scheme: Scheme, taught: Taught | None) -> SoftTargets:
    """The targets of tokens outside of gold spans.

    The tag of such a token is O or one of a label for which its document was not annotated. A teacher says how probable
    each of these is; its O is O or a label that neither of the two knows.

    rows (ndarray[int64]): Numbers of tokens in the batch.
    unknown (ndarray[bool]): The labels that each may have according to its annotation, shape (rows, labels).
    taught (Taught | None): None: all of these tags are open.
    """
    # Tags are numbered by kind, with O first.
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
    """The tokens outside of gold spans for which some label is not annotated.

    truth (ndarray[int]): The number of each token's tag, shape (tokens,).
    unknown (ndarray[bool]): The labels that are not annotated, shape (tokens, labels).
    RETURNS (ndarray[bool]): Shape (tokens,).
    """
    return (truth == MISSING) | ((truth == 0) & unknown.any(axis=1))


def targets_of_soft_tags(soft_tags: Sequence[tuple[int, SoftTags]]) -> SoftTargets:
    """Targets from tag probabilities that another head has written to documents.

    soft_tags (Sequence[tuple[int, SoftTags]]): Each with the number of its first token in the batch; at least one.
    """
    rows = np.concatenate([first + np.flatnonzero(tags.counts) for first, tags in soft_tags])
    shares = np.concatenate([tags.shares() for _, tags in soft_tags])
    return SoftTargets(rows, shares, np.zeros(shares.shape, dtype=bool))
