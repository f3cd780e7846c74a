"""Tags that encode spans, their best well-formed sequence, and the probabilities of spans. Imports no spaCy."""

from .confidence import Calibration, Curve, calibration_error
from .crf_loss import crf_cross_entropy, negative_log_likelihood, possible_tags
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
    "crf_cross_entropy",
    "negative_log_likelihood",
    "possible_tags",
    "tag_marginals",
]
