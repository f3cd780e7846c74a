"""Losses of tags: sums over the tokens of a batch, and their gradients with respect to scores."""

from collections.abc import Sequence

import numpy as np
from spacy.tokens import Doc
from thinc.api import Ops
from thinc.types import Floats2d

from ..alignment import is_word
from ..layers import LossSettings, soft_loss, softmax_loss
from ..tagging import Scheme, negative_log_likelihood
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


def likelihood(
    ops: Ops, log_probs: Floats2d, truth: np.ndarray, docs: Sequence[Doc], scheme: Scheme, transitions: np.ndarray
) -> tuple[float, Floats2d, Floats2d]:
    """The negative log-likelihood of the annotation in a CRF. The recursions run on the CPU.

    log_probs (Floats2d), truth (ndarray[int]): As in `cross_entropy`; other tokens may have any tag.
    docs (Sequence[Doc]): The documents of the tokens. White space and documents without annotation do not count.
    transitions (ndarray[float32]): Shape (tags + 1, tags + 1).
    RETURNS (tuple[float, Floats2d, Floats2d]): The loss, and its gradients with respect to scores and transitions.
    """
    parts = np.split(truth, np.cumsum([len(doc) for doc in docs])[:-1])
    word = [is_word(doc) & bool((part != MISSING).any()) for doc, part in zip(docs, parts, strict=True)]
    words = np.flatnonzero(np.concatenate(word))
    lengths = np.array([found.sum() for found in word])
    loss, of_words, of_transitions = negative_log_likelihood(
        ops.to_numpy(log_probs)[words], lengths, truth[words], scheme, transitions
    )
    gradient = np.zeros(log_probs.shape, dtype=np.float32)
    gradient[words] = of_words
    return loss, ops.asarray2f(gradient), ops.asarray2f(of_transitions.astype(np.float32))
