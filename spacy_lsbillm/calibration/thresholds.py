"""Thresholds of labels for a requested precision or recall on the development set."""

from dataclasses import dataclass

import numpy as np

from .evidence import Evidence

# A label with fewer spans, written or gold, gets the threshold of all labels together.
LEAST_SPANS = 30
# The precision of fewer spans is a matter of chance: no threshold keeps so few in order to reach it.
LEAST_KEPT = 10


@dataclass(frozen=True)
class Threshold:
    """The threshold of a label.

    value (float): The probability below which spans are dropped.
    precision (float | None), recall (float | None): On the development set; None without spans.
    reached (bool): Whether the requested value is reached.
    own (bool): Whether the label has enough spans for its own threshold.
    """

    value: float
    precision: float | None
    recall: float | None
    reached: bool
    own: bool


def thresholds(
    written: Evidence, probabilities: np.ndarray, *, precision: float | None = None, recall: float | None = None
) -> dict[str, Threshold]:
    """Find the threshold of each label for a precision or a recall.

    It is the lowest with that precision, which keeps most spans, or the highest with that recall. If none reaches it,
    it is the one with the best precision, or 0.

    written (Evidence): Spans that a head writes.
    probabilities (ndarray[float]): Their probabilities.
    precision (float | None), recall (float | None): The requested value; exactly one of the two.
    """
    together = _value(probabilities, written.right, int(written.gold.sum()), precision, recall)
    by_label = {}
    for i, label in enumerate(written.labels):
        own = written.label == i
        p, right, gold = probabilities[own], written.right[own], int(written.gold[:, i].sum())
        enough = min(len(p), gold) >= LEAST_SPANS
        value = _value(p, right, gold, precision, recall) if enough else together
        hits, kept = int(right[p >= value].sum()), int((p >= value).sum())
        was = hits / kept if kept else None, hits / gold if gold else None
        got, wanted = (was[0], precision) if precision is not None else (was[1], recall)
        assert wanted is not None
        by_label[label] = Threshold(value, *was, reached=got is not None and got >= wanted, own=enough)
    return by_label


def kept_and_right(probabilities: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each probability, in descending order, with how many spans have at least that, and how many are right."""
    order = np.argsort(-probabilities, kind="stable")
    p, hits = probabilities[order], np.cumsum(right[order])
    # Spans with equal probabilities are kept or dropped together.
    last = np.flatnonzero(np.append(p[1:] != p[:-1], True)) if len(p) else np.zeros(0, dtype=np.int64)
    return p[last], last + 1, hits[last]


def _value(
    probabilities: np.ndarray, right: np.ndarray, gold: int, precision: float | None, recall: float | None
) -> float:
    p, kept, hits = kept_and_right(probabilities, right)
    if not len(p):
        return 0.0
    if precision is None:
        enough = np.flatnonzero(hits >= (recall or 0.0) * gold)
        return _below(p[enough[0]]) if len(enough) else 0.0
    counted = np.flatnonzero(kept >= min(LEAST_KEPT, kept[-1]))
    precisions = hits[counted] / kept[counted]
    enough = np.flatnonzero(precisions >= precision)
    return _below(p[counted[enough[-1] if len(enough) else int(np.argmax(precisions))]])


def _below(probability: float) -> float:
    """A value slightly below, as probabilities of the same span differ by rounding from batch to batch."""
    return max(0.0, float(probability) - 1e-5)
