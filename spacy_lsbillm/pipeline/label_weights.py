"""The weights of labels in the loss of tags."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..layers import LossSettings
from ..tagging import Scheme
from ..tagging.scheme import OUTSIDE


def label_weights(loss: LossSettings, labels: Sequence[str], counts: Mapping[str, int], name: str) -> list[float]:
    """The weight of each label, and last that of tokens outside of spans, "O", unless a label has that name.

    counts (Mapping): How many gold spans have each label.
    name (str): The component's, for the message.
    RAISES (SettingError): A weight is set for an unknown label.
    """
    weights: list[float] = [counts[label] for label in labels]
    if OUTSIDE in labels:
        return loss.weights(labels, weights, repr(name))
    # "O" counts as the average label, so that "balanced" does not change its weight.
    return loss.weights([*labels, OUTSIDE], [*weights, sum(weights) / len(weights)], repr(name))


def add_weight(weights: list[float], loss: LossSettings, label: str, n_labels: int) -> None:
    """Add the weight of one more label.

    weights (list[float]): As from `label_weights`; changed in place.
    n_labels (int): The number of labels before.
    """
    table = loss.class_weights
    # The weight of "O", if it has one, comes after those of the labels.
    weights.insert(n_labels, float(table.get(label, 1.0)) if isinstance(table, dict) else 1.0)


def tag_weights(weights: Sequence[float] | None, scheme: Scheme) -> np.ndarray:
    """The weight of each tag, by number.

    weights (Sequence[float] | None): As from `label_weights`; None: all are 1.
    RETURNS (ndarray[float32]): Shape (tags,).
    """
    if not weights:
        return np.ones(scheme.n_tags, dtype=np.float32)
    n_labels = len(scheme.labels)
    outside = weights[n_labels] if len(weights) > n_labels else 1.0
    return np.array([outside, *list(weights[:n_labels]) * len(scheme.kinds)], dtype=np.float32)
