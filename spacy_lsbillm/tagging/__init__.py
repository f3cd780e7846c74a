"""Tags that stand for spans, the best well-formed sequence of them, and the probabilities of spans. No spaCy in it."""

from .confidence import Calibration, Curve, calibration_error
from .decode import best_tags
from .marginals import around_spans, candidates, tag_marginals
from .scheme import SCHEMES, Scheme, Spans

__all__ = [
    "SCHEMES",
    "Calibration",
    "Curve",
    "Scheme",
    "Spans",
    "around_spans",
    "best_tags",
    "calibration_error",
    "candidates",
    "tag_marginals",
]
