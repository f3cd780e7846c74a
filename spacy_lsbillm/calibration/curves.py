"""Choosing and fitting the curve that turns a head's scores into probabilities."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..tagging import Calibration, Curve
from ..tagging.confidence import EDGE
from .evidence import Evidence

# Each curve as a linear map from its own parameters to a, b and c of `Curve`, and the parameters that change nothing.
FAMILIES = {
    "none": (np.zeros((3, 0)), np.zeros(0)),
    "temperature": (np.array([[1.0], [1.0], [0.0]]), np.array([1.0])),
    "Platt": (np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([1.0, 0.0])),
    "beta": (np.eye(3), np.array([1.0, 1.0, 0.0])),
}
# How strongly a curve is drawn to no change, and a label's curve to that of all labels: the weight of this many spans.
TO_NONE, TO_ALL = 1.0, 5.0
# A label with fewer spans has no curve of its own.
LEAST_OF_LABEL = 50
FOLDS = 5
STEPS, NEAR = 100, 1e-8
# Log losses that differ by no more than this count as equal.
NO_BETTER = 1e-6


@dataclass(frozen=True)
class Fitted:
    """The chosen curves and how they were chosen.

    kind (str): "none", "temperature", "Platt" or "beta".
    per_label (bool): Whether labels with enough spans have their own curve.
    curve (Curve), by_label (dict[str, Curve]): The curves.
    losses (dict[str, float]): The mean log loss of each choice on held-out documents.
    held_out (ndarray[float64]): The probability of each written span by curves fitted without its document.
    """

    kind: str
    per_label: bool
    curve: Curve
    by_label: dict[str, Curve]
    losses: dict[str, float]
    held_out: np.ndarray

    @property
    def in_words(self) -> str:
        """The choice in words, for a report."""
        if self.kind == "none":
            return "no curve, as none is better"
        return f"{self.kind}, {len(self.by_label)} labels of their own" if self.per_label else self.kind


def fit_curve(written: Evidence) -> Fitted:
    """Choose the curve with the smallest log loss on held-out documents; of equal ones, that with fewer parameters.

    written (Evidence): Spans that a head writes.
    """
    fold = written.document % FOLDS
    losses: dict[str, float] = {}
    best: tuple[float, str, bool, np.ndarray] | None = None
    for kind, per_label in _choices():
        held_out = np.empty(len(written.score))
        for number in range(FOLDS):
            chosen = fold == number
            held_out[chosen] = _probabilities(_fit_kind(written.where(~chosen), kind, per_label), written, chosen)
        loss = log_loss(held_out, written.right)
        losses[f"{kind} by label" if per_label else kind] = loss
        if best is None or loss < best[0] - NO_BETTER:
            best = loss, kind, per_label, held_out
    assert best is not None
    _, kind, per_label, held_out = best
    calibration = _fit_kind(written, kind, per_label)
    return Fitted(kind, per_label, calibration.curve, calibration.by_label, losses, held_out)


def log_loss(probabilities: np.ndarray, right: np.ndarray) -> float:
    """The mean negative log-probability of the true outcomes."""
    p = np.clip(probabilities, EDGE, 1 - EDGE)
    return float(-np.where(right, np.log(p), np.log1p(-p)).mean())


def _choices() -> Iterator[tuple[str, bool]]:
    for per_label in (False, True):
        for kind in FAMILIES:
            if kind != "none" or not per_label:
                yield kind, per_label


def _probabilities(calibration: Calibration, evidence: Evidence, chosen: np.ndarray) -> np.ndarray:
    return calibration.probabilities(evidence.score[chosen], evidence.label[chosen], evidence.labels)


def _fit_kind(written: Evidence, kind: str, per_label: bool) -> Calibration:
    to_curve, start = FAMILIES[kind]
    if kind == "none":
        return Calibration()
    features = _features(written.score) @ to_curve
    numbers = _newton(features, written.right, start, TO_NONE)
    by_label = {}
    for i, label in enumerate(written.labels if per_label else ()):
        own = written.label == i
        if own.sum() >= LEAST_OF_LABEL:
            by_label[label] = _curve(to_curve @ _newton(features[own], written.right[own], numbers, TO_ALL))
    return Calibration(_curve(to_curve @ numbers), by_label)


def _features(scores: np.ndarray) -> np.ndarray:
    p = np.clip(scores, EDGE, 1 - EDGE)
    return np.stack([np.log(p), -np.log1p(-p), np.ones(len(p))], axis=1)


def _curve(numbers: np.ndarray) -> Curve:
    a, b, c = numbers.tolist()
    # A falling curve would reverse the order of spans.
    return Curve(max(a, 0.0), max(b, 0.0), c)


def _newton(features: np.ndarray, right: np.ndarray, start: np.ndarray, strength: float) -> np.ndarray:
    """Logistic regression with a penalty on the distance from the start, by Newton's method with step halving."""
    sign = np.where(right, -1.0, 1.0)

    def loss(numbers: np.ndarray) -> float:
        return float(np.logaddexp(0, sign * (features @ numbers)).sum() + strength / 2 * ((numbers - start) ** 2).sum())

    numbers = start.copy()
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-(features @ numbers)))
        gradient = features.T @ (p - right) + strength * (numbers - start)
        hessian = (features * (p * (1 - p))[:, None]).T @ features + strength * np.eye(len(start))
        step = np.linalg.solve(hessian, gradient)
        before = loss(numbers)
        while np.abs(step).max() > NEAR and loss(numbers - step) > before:
            step = step / 2
        numbers = numbers - step
        if np.abs(step).max() <= NEAR:
            break
    return numbers
