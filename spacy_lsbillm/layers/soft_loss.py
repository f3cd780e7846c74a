"""Cross-entropy where the truth is a distribution that may be only partly known.

Some classes have a known share of the truth. The rest of 1 belongs to the open classes, it is unknown to which: the
loss for it is that of their summed probability, the marginal likelihood of partially annotated data (Tsuboi et al.,
2008, "Training Conditional Random Fields Using Incomplete Annotations", section 3). With one share of 1 it is
cross-entropy, with all classes open it is 0, and with shares from another model it is distillation (Hinton et al.,
arXiv 1503.02531, section 2).
"""

from typing import Any

from .class_loss import LEAST


def soft_loss(xp: Any, probabilities: Any, shares: Any, is_open: Any) -> tuple[Any, Any]:
    """The loss of each row, and its gradient.

    xp: numpy or cupy.
    probabilities (ndarray[float32]): Shape (rows, classes); all arrays below have the same shape.
    shares (ndarray[float32]): The known part of the truth; each row sums to at most 1.
    is_open (ndarray[bool]): The classes among which the rest of the truth is. Rows without any have no rest.
    RETURNS (tuple[ndarray, ndarray]): The loss of each row, shape (rows,), and its gradient with respect to the scores
        before softmax, shape (rows, classes).
    """
    together = (probabilities * is_open).sum(axis=1, keepdims=True)
    rest = xp.maximum(1 - shares.sum(axis=1, keepdims=True), 0) * is_open.any(axis=1, keepdims=True)
    loss = -(shares * xp.log(xp.maximum(probabilities, LEAST))).sum(axis=1)
    loss -= (rest * xp.log(xp.maximum(together, LEAST)))[:, 0]
    truth = shares + rest * probabilities * is_open / xp.maximum(together, LEAST)
    return loss, (shares.sum(axis=1, keepdims=True) + rest) * probabilities - truth
