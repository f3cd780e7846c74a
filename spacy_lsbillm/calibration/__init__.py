"""Meaningful confidence: probabilities, thresholds and guarantees for the heads of a trained pipeline."""

from .curves import Fitted, fit_curve
from .evidence import Evidence
from .gathering import gather
from .guarantees import Guarantee, guarantee, recalls
from .run import META, Report, calibrate, heads_of, summary
from .settings import CalibrationSettings
from .thresholds import Threshold, thresholds

__all__ = [
    "META",
    "CalibrationSettings",
    "Evidence",
    "Fitted",
    "Guarantee",
    "Report",
    "Threshold",
    "calibrate",
    "fit_curve",
    "gather",
    "guarantee",
    "heads_of",
    "recalls",
    "summary",
    "thresholds",
]
