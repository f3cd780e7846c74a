"""Calibration of a classifier's probabilities, kept in the attributes of its model, which spaCy saves."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from thinc.api import Model
from thinc.types import Floats2d

from ..tagging.confidence import EDGE

# In the attributes of a model: a ClassCalibration as a dictionary; empty: there is none.
CALIBRATION = "calibration"
# The score before the sigmoid at which `tagging.Curve` clips probabilities, as in the fit of the curves.
FURTHEST = float(np.log((1 - EDGE) / EDGE))


@dataclass(frozen=True)
class ClassCalibration:
    """What turns the scores of classes into probabilities.

    temperature (float): Of classes that exclude each other: their scores are divided by it before softmax (Guo et al.,
        arXiv 1706.04599, section 4.2). Above 1 probabilities become less extreme.
    curves (Sequence[Sequence[float]]): Of classes that do not: a, b and c of each class, as in `tagging.Curve`; empty
        where classes exclude each other.
    """

    temperature: float = 1.0
    curves: Sequence[Sequence[float]] = ()

    def probabilities(self, model: Model, scores: Floats2d) -> Floats2d:
        """Calibrated probabilities.

        scores (Floats2d): Before softmax or sigmoid, shape (documents, classes).
        RETURNS (Floats2d): Of the same shape.
        """
        if not self.curves:
            return model.ops.softmax(scores / self.temperature)
        xp = model.ops.xp
        a, b, c = xp.asarray(self.curves, dtype="f").T
        scores = xp.clip(scores, -FURTHEST, FURTHEST)
        # ln p and -ln(1 - p) of p = sigmoid(score).
        return model.ops.sigmoid(-a * xp.logaddexp(0, -scores) + b * xp.logaddexp(0, scores) + c)


def calibration_of(model: Model) -> ClassCalibration | None:
    """The calibration of a classifier; None if it has none."""
    stored: dict[str, Any] = model.attrs.get(CALIBRATION) or {}
    return ClassCalibration(**stored) if stored else None


def set_calibration(model: Model, calibration: ClassCalibration | None) -> None:
    """Give a classifier a calibration in place of the one that it has; None: only remove it."""
    model.attrs[CALIBRATION] = {} if calibration is None else asdict(calibration)


@contextmanager
def uncalibrated(model: Model) -> Iterator[None]:
    """Predict with the model's own probabilities for a while."""
    before = calibration_of(model)
    set_calibration(model, None)
    try:
        yield
    finally:
        set_calibration(model, before)
