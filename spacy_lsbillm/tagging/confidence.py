"""What makes a probability of what a model says: a curve from scores to probabilities, thresholds, and how far scores
are from what they claim."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

# Scores are taken for no nearer to 0 and 1 than this.
EDGE = 1e-6
BINS = 15


@dataclass(frozen=True)
class Curve:
    """A score p becomes 1 / (1 + exp(-(a ln p - b ln(1 - p) + c))): beta calibration (Kull et al., 2017), of which
    Platt scaling of the score's logit (a = b) and a temperature (a = b = 1 / T, c = 0) are special cases.

    a (float), b (float): At least 0, so that a higher score never gets a lower probability.
    c (float): 0 where nothing is shifted.
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities, shape as the scores', float32."""
        p = np.clip(scores.astype(np.float64), EDGE, 1 - EDGE)
        logit = self.a * np.log(p) - self.b * np.log1p(-p) + self.c
        return (1 / (1 + np.exp(-logit))).astype(np.float32)


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` has found for a head.

    curve (Curve): From scores to probabilities.
    by_label (dict[str, Curve]): Of labels that have one of their own.
    threshold (dict[str, float]): Of each label, the probability below which spans are left out; empty: none are.
    candidates_key (str | None): Where candidates are written: `doc.spans[candidates_key]`; None: nowhere.
    candidates_from (dict[str, float]): The lowest score of a candidate by label, before its curve: what is guaranteed
        does not depend on curves.
    """

    curve: Curve = Curve()
    by_label: dict[str, Curve] = field(default_factory=dict)
    threshold: dict[str, float] = field(default_factory=dict)
    candidates_key: str | None = None
    candidates_from: dict[str, float] = field(default_factory=dict)

    def probabilities(self, scores: np.ndarray, label: np.ndarray, labels: tuple[str, ...]) -> np.ndarray:
        """Of spans.

        scores (ndarray[float32]), label (ndarray[int]): Of each span; shape (spans,).
        labels (tuple[str, ...]): Of the head.
        RETURNS (ndarray[float32]): Shape (spans,).
        """
        found = self.curve(scores)
        for name, curve in self.by_label.items():
            chosen = label == labels.index(name)
            found[chosen] = curve(scores[chosen])
        return found

    def as_dict(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Calibration":
        """RAISES (TypeError, KeyError): It is none."""
        by_label = {label: Curve(**curve) for label, curve in content["by_label"].items()}
        return cls(**{**content, "curve": Curve(**content["curve"]), "by_label": by_label})


def equal_mass_bins(scores: np.ndarray, right: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, np.ndarray]:
    """The mean score and the share that is right of bins of spans in the order of their scores, as many in each.

    scores (ndarray[float]), right (ndarray[bool]): Of each span.
    RETURNS (tuple[ndarray, ndarray]): A row a bin, fewer where there are fewer spans.
    """
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return np.array([scores[part].mean() for part in parts]), np.array([right[part].mean() for part in parts])


def calibration_error(scores: np.ndarray, right: np.ndarray, bins: int = BINS) -> float | None:
    """The expected calibration error (Naeini et al., 2015) in bins of equal mass (Nguyen and O'Connor, 2015); None
    without spans."""
    if not len(scores):
        return None
    said, was = equal_mass_bins(np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=np.float64), bins)
    sizes = np.array([len(part) for part in np.array_split(np.arange(len(scores)), bins) if len(part)])
    return float((np.abs(said - was) * sizes).sum() / len(scores))
