"""Turning scores into probabilities and decisions: calibration curves, thresholds, and the calibration error."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

# Scores are clipped to this distance from 0 and 1.
EDGE = 1e-6
BINS = 15


@dataclass(frozen=True)
class Curve:
    """A score p becomes 1 / (1 + exp(-(a ln p - b ln(1 - p) + c))): beta calibration (Kull et al., 2017).

    Platt scaling of the score's logit (a = b) and a temperature (a = b = 1 / T, c = 0) are special cases.

    a (float), b (float): At least 0, so that a higher score never gets a lower probability.
    c (float): The shift; 0 for a temperature.
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32, of the same shape as the scores."""
        p = np.clip(scores.astype(np.float64), EDGE, 1 - EDGE)
        logit = self.a * np.log(p) - self.b * np.log1p(-p) + self.c
        return (1 / (1 + np.exp(-logit))).astype(np.float32)


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found for a head.

    curve (Curve): The curve from scores to probabilities.
    by_label (dict[str, Curve]): The curves of labels that have their own.
    threshold (dict[str, float]): For each label, the probability below which spans are dropped; empty: none are.
    candidates_key (str | None): Candidates are written to `doc.spans[candidates_key]`; None: nowhere.
    candidates_from (dict[str, float]): The lowest score of a candidate by label, before its curve: guarantees do not
        depend on curves.
    """

    curve: Curve = Curve()
    by_label: dict[str, Curve] = field(default_factory=dict)
    threshold: dict[str, float] = field(default_factory=dict)
    candidates_key: str | None = None
    candidates_from: dict[str, float] = field(default_factory=dict)

    def probabilities(self, scores: np.ndarray, label: np.ndarray, labels: tuple[str, ...]) -> np.ndarray:
        """The calibrated probabilities of spans.

        scores (ndarray[float32]), label (ndarray[int]): Score and label of each span; shape (spans,).
        labels (tuple[str, ...]): The labels of the head.
        RETURNS (ndarray[float32]): Shape (spans,).
        """
        calibrated = self.curve(scores)
        for name, curve in self.by_label.items():
            chosen = label == labels.index(name)
            calibrated[chosen] = curve(scores[chosen])
        return calibrated

    def as_dict(self) -> dict[str, Any]:
        """The calibration as plain values, for a file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Calibration":
        """Read what `as_dict` returned.

        RAISES (TypeError, KeyError): It is not a calibration.
        """
        by_label = {label: Curve(**curve) for label, curve in content["by_label"].items()}
        return cls(**{**content, "curve": Curve(**content["curve"]), "by_label": by_label})


def equal_mass_bins(scores: np.ndarray, right: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, np.ndarray]:
    """The mean score, and the fraction that is right, in bins with equal numbers of spans, sorted by score.

    scores (ndarray[float]), right (ndarray[bool]): Score of each span, and whether it is right.
    RETURNS (tuple[ndarray, ndarray]): One entry per bin; fewer bins if there are fewer spans.
    """
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return np.array([scores[part].mean() for part in parts]), np.array([right[part].mean() for part in parts])


def calibration_error(scores: np.ndarray, right: np.ndarray, bins: int = BINS) -> float | None:
    """The expected calibration error in bins of equal mass; None if there are no spans.

    Naeini et al., 2015; for the bins Nguyen and O'Connor, 2015.
    """
    if not len(scores):
        return None
    said, was = equal_mass_bins(np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=np.float64), bins)
    sizes = np.array([len(part) for part in np.array_split(np.arange(len(scores)), bins) if len(part)])
    return float((np.abs(said - was) * sizes).sum() / len(scores))
