"""Do two masks differ, or is it chance? A paired bootstrap over documents and seeds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from spacy.tokens import Doc
from spacy.training import Example

from ..pipeline.gold_spans import with_trimmed_spans
from ..pipeline.label_sets import with_judged_spans

RESAMPLES = 5000
# Documents times resamples that are drawn at once: it limits memory.
DRAWN_AT_ONCE = 20_000_000
NOTHING = (0, 0, 0)


@dataclass(frozen=True)
class Difference:
    """A paired comparison of two systems.

    mean (float): The score of the first minus that of the second.
    low (float), high (float): The limits of the middle 95% of the resampled differences.
    p (float): The two-sided p-value: twice the smaller share of resampled differences at or beyond zero. One more is
        counted than there were, so that it is never 0 (Davison and Hinkley, 1997, section 4.2).
    """

    mean: float
    low: float
    high: float
    p: float


def paired_bootstrap(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Difference:
    """Compare micro F1 of two systems on the same documents with the same seeds.

    Efron and Tibshirani, 1993; for language processing Koehn, 2004. Documents and seeds are drawn with replacement, the
    same ones for both systems.

    first (ndarray), second (ndarray): True positives, false positives and false negatives; shape (seeds, documents, 3).
    seed (int): The seed of the resampling.
    RETURNS (Difference): The comparison.
    """
    rng = np.random.default_rng(seed)
    n_seeds, n_docs, _ = first.shape
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=RESAMPLES) / n_seeds
    parts = []
    # In parts, since a large test set would need gigabytes at once.
    for drawn in np.array_split(seeds, -(-RESAMPLES * n_docs // DRAWN_AT_ONCE)):
        docs = rng.multinomial(n_docs, np.full(n_docs, 1 / n_docs), size=len(drawn)).astype("float32")
        # Shape (resamples, seeds, 3).
        totals = [np.einsum("rd,sdk->rsk", docs, counts.astype("float32"), optimize=True) for counts in (first, second)]
        parts.append(((f1(totals[0]) - f1(totals[1])) * drawn).sum(axis=1))
    differences = np.concatenate(parts)
    low, high = np.quantile(differences, [0.025, 0.975])
    beyond = (1 + min((differences <= 0).sum(), (differences >= 0).sum())) / (1 + len(differences))
    mean = f1(first.sum(axis=1)).mean() - f1(second.sum(axis=1)).mean()
    return Difference(float(mean), float(low), float(high), float(min(1.0, 2 * beyond)))


def f1(counts: np.ndarray) -> np.ndarray:
    """F1 scores of counts; 0 where there is nothing to count.

    counts (ndarray): True positives, false positives and false negatives in the last axis.
    RETURNS (ndarray): The scores, in float64; the shape is that of the counts without the last axis.
    """
    right, wrong, missed = np.moveaxis(np.asarray(counts, dtype="float64"), -1, 0)
    total = 2 * right + wrong + missed
    return np.divide(2 * right, total, out=np.zeros_like(total), where=total > 0)


def counts_for(
    score: str, threshold: float | None = None, judged: bool = False
) -> Callable[[Example], tuple[int, int, int]] | None:
    """The function that counts a document for a score.

    A document without annotation counts as nothing, as in spaCy's scores.

    score (str): The name of the score: "ents_f", "spans_KEY_f" or "cats_micro_f".
    threshold (float | None): The probability from which on a class counts, if classes do not exclude each other; None
        if they do, and the most probable one counts.
    judged (bool): Count spans like the scorers of our own components, which ignore white space at the ends of gold
        spans, and predicted spans with a label for which the document was not annotated.
    RETURNS (Callable | None): Document to true positives, false positives and false negatives; None for a score that
        such counts do not give.
    """
    if (key := spans_key_of(score)) is not None or score == "ents_f":
        return partial(_count_judged if judged else _count_spans, key)
    if score == "cats_micro_f":
        return partial(_count_classes, threshold)
    return None


def spans_key_of(score: str) -> str | None:
    """The key of a score of the spans in `doc.spans[key]`; None for another score."""
    ours = score.startswith("spans_") and score.endswith("_f")
    return score.removeprefix("spans_").removesuffix("_f") if ours else None


def _count_judged(key: str | None, example: Example) -> tuple[int, int, int]:
    return _count_spans(key, with_judged_spans(with_trimmed_spans(example, key), key))


def _count_spans(key: str | None, example: Example) -> tuple[int, int, int]:
    if key is None:
        if not example.reference.has_annotation("ENT_IOB"):
            return NOTHING
        return _count(_spans(example.predicted.ents), _spans(example.reference.ents))
    if key not in example.reference.spans:
        return NOTHING
    return _count(_spans(example.predicted.spans.get(key, [])), _spans(example.reference.spans[key]))


def _count_classes(threshold: float | None, example: Example) -> tuple[int, int, int]:
    known = example.reference.cats
    gold = {name for name, one in known.items() if one == 1}
    if threshold is not None:
        return _count(_classes(example.predicted, threshold) & known.keys(), gold)
    return _count(_classes(example.predicted, None), gold) if gold else NOTHING


def _spans(spans: Any) -> set[tuple[int, int, str]]:
    return {(span.start_char, span.end_char, span.label_) for span in spans}


def _classes(doc: Doc, threshold: float | None) -> set[str]:
    if threshold is not None:
        return {name for name, score in doc.cats.items() if score >= threshold}
    return {max(doc.cats, key=lambda name: doc.cats[name])} if doc.cats else set()


def _count(predicted: set[Any], gold: set[Any]) -> tuple[int, int, int]:
    right = len(predicted & gold)
    return right, len(predicted) - right, len(gold) - right
