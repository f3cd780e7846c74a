"""Losses of tags: sums over the tokens of a batch, and their gradients with respect to scores.

thinc's `SequenceCategoricalCrossentropy` has neither weights of labels nor targets that are distributions of tags.
"""

from collections.abc import Sequence

import numpy as np
from spacy.tokens import Doc
from thinc.api import Ops
from thinc.types import Floats2d

from ..alignment import is_word
from ..layers import LossSettings, soft_loss, softmax_loss
from ..tagging import Scheme, crf_cross_entropy, negative_log_likelihood, possible_tags
from ..tagging.scheme import MISSING
from .tag_targets import SoftTargets


def cross_entropy(
    ops: Ops, log_probs: Floats2d, truth: np.ndarray, loss: LossSettings, weights: np.ndarray
) -> tuple[float, Floats2d]:
    """Cross-entropy of tokens that have one true tag each.

    log_probs (Floats2d): Shape (tokens, tags).
    truth (ndarray[int]): The number of each token's tag, -1 for those that do not count; shape (tokens,).
    loss (LossSettings), weights (ndarray[float32]): Modifications for rare labels; one weight per tag.
    """
    xp = ops.xp
    gradient = xp.zeros_like(log_probs)
    rows = xp.asarray(np.flatnonzero(truth != MISSING))
    if not len(rows):
        return 0.0, gradient
    true = xp.asarray(truth)[rows]
    gradient[rows] = xp.exp(log_probs[rows])
    if loss.plain:
        losses = -log_probs[rows, true]
        gradient[rows, true] -= 1
    else:
        losses, gradient[rows] = softmax_loss(xp, gradient[rows], true, xp.asarray(weights)[true], loss)
    return float(losses.sum()), gradient


def soft_cross_entropy(ops: Ops, log_probs: Floats2d, soft: SoftTargets, gradient: Floats2d) -> float:
    """Cross-entropy of tokens that have a distribution of tags.

    log_probs (Floats2d): Shape (tokens, tags).
    gradient (Floats2d): Filled with the gradient, for all tokens.
    """
    xp = ops.xp
    rows, shares, is_open = xp.asarray(soft.rows), xp.asarray(soft.shares), xp.asarray(soft.is_open)
    losses, gradient[rows] = soft_loss(xp, xp.exp(log_probs[rows]), shares, is_open)
    return float(losses.sum())


def sequence_loss(
    ops: Ops,
    log_probs: Floats2d,
    truth: np.ndarray,
    soft: Sequence[SoftTargets],
    docs: Sequence[Doc],
    scheme: Scheme,
    transitions: np.ndarray,
) -> tuple[float, Floats2d, Floats2d]:
    """The loss of a CRF.

    In each document it is the negative log-likelihood of the annotation, or the cross-entropy against a teacher's
    probabilities if there are any for one of its tokens. The recursions run on the CPU.

    log_probs (Floats2d), truth (ndarray[int]): As in `cross_entropy`; other tokens may have any tag.
    soft (Sequence[SoftTargets]): Tokens without a single known tag of which something is known.
    docs (Sequence[Doc]): The documents of the tokens. White space and documents without annotation do not count.
    transitions (ndarray[float32]): Shape (tags + 1, tags + 1).
    RETURNS (tuple[float, Floats2d, Floats2d]): The loss, and its gradients with respect to scores and transitions.
    """
    scores, possible, known = ops.to_numpy(log_probs), possible_tags(truth, scheme), truth != MISSING
    shares = np.zeros(scores.shape, dtype=np.float32)
    for part in soft:
        possible[part.rows], shares[part.rows], known[part.rows] = part.is_open, part.shares, True
    taught = np.any(shares != 0, axis=1)
    hard = possible.sum(axis=1) == 1
    shares[hard & ~taught] = possible[hard & ~taught]
    ends = np.cumsum([len(doc) for doc in docs])[:-1]
    # The words of documents without and with a teacher's probabilities.
    words: dict[bool, list[np.ndarray]] = {False: [], True: []}
    for doc, rows in zip(docs, np.split(np.arange(len(truth)), ends), strict=True):
        if known[rows].any():
            words[bool(taught[rows].any())].append(rows[is_word(doc)])
    loss, gradient, of_transitions = 0.0, np.zeros(scores.shape, dtype=np.float32), np.zeros(transitions.shape)
    for by_teacher, parts in words.items():
        if not parts:
            continue
        rows, lengths = np.concatenate(parts), np.array([len(part) for part in parts])
        if by_teacher:
            found = crf_cross_entropy(scores[rows], lengths, shares[rows], possible[rows], scheme, transitions)
        else:
            found = negative_log_likelihood(scores[rows], lengths, possible[rows], scheme, transitions)
        loss, gradient[rows], of_transitions = loss + found[0], found[1], of_transitions + found[2]
    return loss, ops.asarray2f(gradient), ops.asarray2f(of_transitions.astype(np.float32))
