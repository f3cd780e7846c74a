"""The lowest score of a candidate for a guaranteed recall, in expectation or with some confidence.

The loss of a document is the fraction of its gold spans that are missed. Both bounds hold for documents from the same
distribution as the development set, and only for those with gold spans: the others lose nothing in any case.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np

from ..errors import DataError, in_short
from .evidence import FLOOR, Evidence

# Scores of the same span differ by rounding from batch to batch: thresholds are lowered by this fraction.
MARGIN = 1e-4
# The maximum number of documents that is recommended.
MOST = 10**7


@dataclass(frozen=True)
class Guarantee:
    """A guaranteed recall.

    recall (float): The fraction of a document's gold spans that are among the candidates.
    delta (float | None): The probability, over draws of the development set, that the mean recall over all documents is
        lower; None: the expectation over draws of development set and documents is at least `recall`.
    threshold (dict[str, float]): The lowest score of a candidate, by label.
    documents (dict[str, int]): The number of documents with gold spans on which it is based: by label, or "" for all
        labels together.
    found (dict[str, float]): The mean recall in these documents, with the same keys.
    per_document (float): Candidates per document there, over all documents.
    """

    recall: float
    delta: float | None
    threshold: dict[str, float]
    documents: dict[str, int]
    found: dict[str, float]
    per_document: float


def guarantee(evidence: Evidence, recall: float, delta: float | None = None, per_label: bool = False) -> Guarantee:
    """Find the highest threshold with a guaranteed recall.

    recall (float): The recall to guarantee, below 1.
    delta (float | None): None: conformal risk control (Angelopoulos et al., arXiv 2208.02814); else Learn-then-Test
        (Angelopoulos et al., arXiv 2110.01052) with its Hoeffding-Bentkus test.
    per_label (bool): For each label separately (with a delta: with that confidence for each, not for all at once).
    RAISES (DataError): There are too few documents, or the model gives gold spans too low probabilities.
    """
    groups = {label: evidence.label == i for i, label in enumerate(evidence.labels)} if per_label else {}
    thresholds: dict[str, float] = {}
    documents: dict[str, int] = {}
    lowest: dict[str, float] = {}
    if per_label:
        for i, (label, own) in enumerate(groups.items()):
            score, reached, number = _threshold(evidence.where(own), evidence.gold[:, i], recall, delta, label)
            thresholds[label], lowest[label], documents[label] = score, reached, number
    else:
        score, lowest[""], documents[""] = _threshold(evidence, evidence.gold.sum(axis=1), recall, delta, "")
        thresholds = dict.fromkeys(evidence.labels, score)
    least = np.array([thresholds[label] for label in evidence.labels])
    kept = evidence.score >= least[evidence.label]
    per_document = float(kept.sum() / max(len(evidence.gold), 1))
    return Guarantee(recall, delta, thresholds, documents, lowest, per_document)


def recalls(evidence: Evidence, threshold: dict[str, float]) -> np.ndarray:
    """The recall of candidates above thresholds, for each document that has gold spans.

    threshold (dict[str, float]): By label.
    """
    least = np.array([threshold[label] for label in evidence.labels])
    hits = evidence.document[evidence.right & (evidence.score >= least[evidence.label])]
    gold = evidence.gold.sum(axis=1)
    return (np.bincount(hits, minlength=len(gold)) / np.maximum(gold, 1))[gold > 0]


def holds(risk: float, documents: int, recall: float, delta: float | None) -> bool:
    """Whether the mean loss over this number of documents is small enough for the guarantee."""
    allowed = 1 - recall
    if delta is None:
        return documents * risk + 1 <= allowed * (documents + 1) + 1e-9
    return _p_value(risk, documents, allowed) <= delta


def needed(risk: float, recall: float, delta: float | None) -> int | None:
    """The number of documents needed if the mean loss is as small as possible; None: no number is enough."""
    if risk >= 1 - recall:
        return None
    high = 1
    while not holds(risk, high, recall, delta):
        high *= 2
        if high > MOST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(risk, middle, recall, delta) else (middle, high)
    return high


def _threshold(
    evidence: Evidence, gold: np.ndarray, recall: float, delta: float | None, label: str
) -> tuple[float, float, int]:
    """The threshold, the mean recall with it, and the number of documents.

    gold (ndarray[int64]): The number of gold spans per document.
    label (str): For messages; "" for all labels together.
    """
    having = int((gold > 0).sum())
    right = np.flatnonzero(evidence.right)
    right = right[np.argsort(-evidence.score[right], kind="stable")]
    # The mean loss once the first, the first two, ... right candidates are included.
    risks = 1 - np.cumsum(1 / gold[evidence.document[right]]) / max(having, 1)
    smallest = max(float(risks[-1]), 0.0) if len(risks) else 1.0
    if not having or not holds(smallest, having, recall, delta):
        raise DataError(_too_few(having, smallest, recall, delta, label))
    # With fewer candidates the loss is higher and the bound is violated sooner.
    low, high = -1, len(risks) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(float(risks[middle]), having, recall, delta) else (middle, high)
    return float(evidence.score[right[high]]) * (1 - MARGIN), float(1 - risks[high]), having


def _too_few(having: int, smallest: float, recall: float, delta: float | None, label: str) -> str:
    of_label = f" of {in_short([label])}" if label else ""
    number = needed(smallest, recall, delta) if having else needed(0.0, recall, delta)
    confidence = "" if delta is None else f" with confidence {1 - delta:g}"
    begin = f"a recall of {recall:g}{of_label}{confidence} cannot be guaranteed"
    if number is None:
        lower = (percent / 100 for percent in range(ceil(100 * recall) - 1, 0, -1))
        possible = next((each for each in lower if holds(smallest, having, each, delta)), None)
        remedy = "" if possible is None else f"Ask for {possible:g} or less, or train"
        return (
            f"{begin}: with all candidates of a probability of {FLOOR:g} or more the recall is {1 - smallest:.3f} in "
            f"{having:,} documents. {remedy or 'Train'} the pipeline longer or on more."
        )
    return (
        f"{begin} by {having:,} documents that have such spans: it takes {number:,} or more. Annotate more, or ask for "
        f"less."
    )


def _p_value(risk: float, documents: int, allowed: float) -> float:
    """The p-value of the hypothesis that the mean loss exceeds the allowed one.

    It is that of Hoeffding and Bentkus, for losses between 0 and 1.
    """
    if risk >= allowed:
        return 1.0
    first = 0.0 if risk <= 0 else risk * np.log(risk / allowed)
    hoeffding = np.exp(-documents * (first + (1 - risk) * np.log((1 - risk) / (1 - allowed))))
    bentkus = np.e * _binomial(ceil(documents * risk - 1e-9), documents, allowed)
    return float(min(hoeffding, bentkus))


def _binomial(most: int, trials: int, chance: float) -> float:
    """The probability of at most `most` successes."""
    k = np.arange(1, most + 1)
    ways = np.concatenate([[0.0], np.cumsum(np.log((trials - k + 1) / k))])
    k = np.arange(most + 1)
    return float(np.exp(ways + k * np.log(chance) + (trials - k) * np.log1p(-chance)).sum())
