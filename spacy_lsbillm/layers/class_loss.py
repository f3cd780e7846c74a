"""Losses for rare classes: class weights, focal loss and label smoothing, with their gradients.

For a row whose true class is y, with probabilities p and w, gamma and epsilon as set, the loss is

    w[y] * (1 - p[y]) ** gamma * sum(-q * log(p))        q = (1 - epsilon) * one_hot(y) + epsilon / classes

Focal loss: Lin et al., arXiv 1708.02002, section 3.2. Label smoothing: Szegedy et al., arXiv 1512.00567, section 7.
With w = 1, gamma = 0 and epsilon = 0 it is cross-entropy. Where classes do not exclude each other, each of them is a
row of two classes: present, or absent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import SettingError
from ..values import is_number

BALANCED = "balanced"
# Probabilities are clipped to at least this before a logarithm.
LEAST = 1e-12


@dataclass(frozen=True)
class LossSettings:
    """How much rare and hard classes count in a loss.

    class_weights (str | dict[str, float] | None): "balanced", or the weight of each class by name, where a missing
        class weighs 1; None: all weigh 1.
    focal_gamma (float): How strongly the loss discounts what the model already predicts well; 0: not at all.
    label_smoothing (float): The share of the truth that is spread evenly over all classes.
    RAISES (SettingError): A value is not allowed.
    """

    class_weights: str | dict[str, float] | None = None
    focal_gamma: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        weights = self.class_weights
        table = weights if isinstance(weights, dict) else {}
        if not (weights is None or weights == BALANCED or table) or not all(
            is_number(value) and value > 0 for value in table.values()
        ):
            raise SettingError(
                f'class_weights = {weights!r} is not allowed. Use "balanced", a table of weights above 0 by class, or '
                f"null."
            )
        if not is_number(self.focal_gamma) or self.focal_gamma < 0:
            raise SettingError(
                f"focal_gamma = {self.focal_gamma!r} is not allowed. Use 0 for none, or a number up to about 5; 2 is "
                f"the usual one."
            )
        if not is_number(self.label_smoothing) or not 0 <= self.label_smoothing < 1:
            raise SettingError(
                f"label_smoothing = {self.label_smoothing!r} is not allowed. Use a share of at least 0 and below 1; "
                f"0.1 is the usual one."
            )

    @property
    def plain(self) -> bool:
        """Whether the loss is plain cross-entropy."""
        return self == LossSettings()

    def weights(self, classes: Sequence[str], counts: Sequence[float], owner: str) -> list[float]:
        """The weight of each class.

        classes (Sequence[str]): The names of the classes.
        counts (Sequence[float]): How often each occurred.
        owner (str): The component whose classes they are, for the error message.
        RAISES (SettingError): A weight names an unknown class.
        """
        if self.class_weights == BALANCED:
            return balanced(counts)
        table = self.class_weights if isinstance(self.class_weights, dict) else {}
        unknown = sorted(set(table) - set(classes))
        if unknown:
            raise SettingError(
                f"class_weights of {owner} names {unknown[0]!r}, which is not among its classes: "
                f"{', '.join(map(repr, classes))}."
            )
        return [float(table.get(name, 1.0)) for name in classes]


CROSS_ENTROPY = LossSettings()


def balanced(counts: Sequence[float]) -> list[float]:
    """Class weights that are inversely proportional to counts, with a mean of 1 over what was counted.

    They are total / (classes * count). Each count is raised by 1, so that a class that never occurred has a finite
    weight.
    """
    total = sum(counts) + len(counts)
    return [total / (len(counts) * (count + 1)) for count in counts]


def softmax_loss(xp: Any, probabilities: Any, truth: Any, weights: Any, settings: LossSettings) -> tuple[Any, Any]:
    """The loss where exactly one class is true, with its gradient.

    xp: numpy or cupy.
    probabilities (ndarray[float32]): Shape (rows, classes).
    truth (ndarray[int]): The true class of each row.
    weights (ndarray[float32]): The weight of the true class of each row.
    RETURNS (tuple[ndarray, ndarray]): The loss of each row, and its gradient with respect to the scores before softmax,
        shape (rows, classes).
    """
    rows = xp.arange(len(truth))
    true = xp.zeros_like(probabilities)
    true[rows, truth] = 1.0
    smoothed = true * (1 - settings.label_smoothing) + settings.label_smoothing / probabilities.shape[1]
    return _loss(xp, probabilities, true, smoothed, weights, settings)


def sigmoid_loss(xp: Any, probabilities: Any, truth: Any, weights: Any, settings: LossSettings) -> tuple[Any, Any]:
    """The loss where each class is present or absent independently of the others, with its gradient.

    xp: numpy or cupy.
    probabilities (ndarray[float32]): Shape (rows, classes); all arrays below have the same shape.
    truth (ndarray[bool]): Whether a class is present.
    weights (ndarray[float32]): The weight of each decision.
    RETURNS (tuple[ndarray, ndarray]): The loss of each decision, and its gradient with respect to the score before the
        sigmoid.
    """
    shape = probabilities.shape
    flat = probabilities.reshape(-1)
    both = xp.stack([1 - flat, flat], axis=1)
    loss, gradient = softmax_loss(xp, both, truth.reshape(-1).astype("i"), weights.reshape(-1), settings)
    # As two classes: one has the score 0, the other the score before the sigmoid.
    return loss.reshape(shape), gradient[:, 1].reshape(shape)


def _loss(xp: Any, p: Any, true: Any, smoothed: Any, weights: Any, settings: LossSettings) -> tuple[Any, Any]:
    entropy = -(smoothed * xp.log(xp.maximum(p, LEAST))).sum(axis=1)
    of_true = (p * true).sum(axis=1)
    missing, gamma = 1 - of_true, settings.focal_gamma
    factor = weights * missing**gamma
    gradient = factor[:, None] * (p - smoothed)
    if gamma:
        # The gradient through the focal factor: d p[y] / d score = p[y] * (one_hot(y) - p).
        turned = weights * gamma * xp.maximum(missing, LEAST) ** (gamma - 1) * of_true * entropy
        gradient -= turned[:, None] * (true - p)
    return factor * entropy, gradient
