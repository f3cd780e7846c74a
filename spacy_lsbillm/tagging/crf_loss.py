"""The losses of a linear-chain CRF and their gradients: from known tags, and from probabilities of tags.

Scores are those of the tags of each token, shape (tokens, tags); `lengths` are the tokens per document. Transitions are
an array of shape (tags + 1, tags + 1), as in `crf`. Both losses are sums over documents.
"""

import numpy as np

from .crf import expected, exponentials
from .scheme import MISSING, Scheme


def possible_tags(truth: np.ndarray, scheme: Scheme) -> np.ndarray:
    """The tags that each token may have: one, or all of them where the truth is not known.

    truth (ndarray[int]): The true tag of each token, well-formed; -1 if it is not known. Shape (tokens,).
    RETURNS (ndarray[bool]): Shape (tokens, tags).
    """
    known = truth != MISSING
    possible = np.repeat(~known[:, None], scheme.n_tags, axis=1)
    possible[known, truth[known]] = True
    return possible


def negative_log_likelihood(
    scores: np.ndarray, lengths: np.ndarray, possible: np.ndarray, scheme: Scheme, transitions: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """The negative log-likelihood of the tag sequences that agree with the annotation (Tsuboi et al., 2008, section 3).

    possible (ndarray[bool]): The tags that each token may have, at least one; shape (tokens, tags). A token that may
        have several does not extend a span of tokens that may have only one.
    RETURNS (tuple[float, ndarray[float64], ndarray[float64]]): The loss, and its gradients with respect to scores and
        transitions.
    """
    if not len(scores):
        return 0.0, np.zeros(scores.shape), np.zeros(transitions.shape)
    weights = exponentials(transitions, scheme)
    every = expected(scores, lengths, weights, scheme)
    if (possible.sum(axis=1) == 1).all():
        # There is one sequence: nothing to sum over.
        counts = _transitions_of(possible.argmax(axis=1), lengths, scheme)
        of_right = scores[possible].sum(dtype=np.float64) + (counts * np.where(counts, transitions, 0.0)).sum()
        return float(every.total.sum() - of_right), every.tags - possible, every.transitions - counts
    possible = _not_extending(possible, scheme)
    # The best possible tag gets the score 0, however improbable it is, and impossible tags get weight 0.
    best = np.where(possible, scores, -np.inf).max(axis=1, keepdims=True)
    right = expected(np.where(possible, scores - best, -np.inf), lengths, weights, scheme)
    loss = float(every.total.sum() - right.total.sum() - best.sum(dtype=np.float64))
    return loss, every.tags - right.tags, every.transitions - right.transitions


def _transitions_of(tags: np.ndarray, lengths: np.ndarray, scheme: Scheme) -> np.ndarray:
    """How often each transition occurs in the tags of documents; shape (tags + 1, tags + 1)."""
    lengths = lengths[lengths > 0]
    ends, edge = np.cumsum(lengths), scheme.n_tags
    before = np.append(edge, tags[:-1])
    before[ends - lengths] = edge
    counts = np.zeros((edge + 1, edge + 1))
    np.add.at(counts, (before, tags), 1.0)
    np.add.at(counts, (tags[ends - 1], edge), 1.0)
    return counts


def _not_extending(possible: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Remove from the possible tags those that would extend a known span.

    In IOB2, a token after the span could continue it; in BILUO, L marks its end.
    """
    if scheme.name != "iob2":
        return possible
    single = possible.sum(axis=1) == 1
    kept = possible.copy()
    kept[1:, scheme.columns("I")] &= (single[1:] | ~single[:-1])[:, None]
    return kept


def crf_cross_entropy(
    scores: np.ndarray,
    lengths: np.ndarray,
    shares: np.ndarray,
    is_open: np.ndarray,
    scheme: Scheme,
    transitions: np.ndarray,
) -> tuple[float, np.ndarray, np.ndarray]:
    """The cross-entropy against a distribution of tag sequences, given by the probabilities of single tags.

    These are those of a teacher, or 1 for gold tags.

    How often one tag follows another is not known from that. It is taken from the well-formed sequences, each weighted
    with the product of its tags' probabilities.

    shares (ndarray[float]): The target probabilities; a row adds up to at most 1. Shape (tokens, tags).
    is_open (ndarray[bool]): The tags among which the rest of a row is. How it is divided, the CRF itself decides with
        its current probabilities (as in expectation maximisation). Shape (tokens, tags).
    RETURNS (tuple[float, ndarray[float64], ndarray[float64]]): The loss, and its gradients with respect to scores and
        transitions.
    """
    if not len(scores):
        return 0.0, np.zeros(scores.shape), np.zeros(transitions.shape)
    every = expected(scores, lengths, exponentials(transitions, scheme), scheme)
    among = every.tags * is_open
    total = among.sum(axis=1, keepdims=True)
    rest = np.maximum(1 - shares.sum(axis=1, keepdims=True), 0) * is_open.any(axis=1, keepdims=True)
    target = shares + rest * np.divide(among, total, out=np.zeros_like(among), where=total > 0)
    with np.errstate(divide="ignore"):
        following = expected(
            np.log(target), lengths, exponentials(np.zeros_like(transitions), scheme), scheme
        ).transitions
    loss = every.total.sum() - (target * scores).sum() - (following * transitions).sum()
    return float(loss), every.tags - target, every.transitions - following
