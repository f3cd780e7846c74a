"""Calibrating classifiers: `textcat` and `textcat_multilabel` with the model `PooledTextCat`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from spacy.pipeline import TextCategorizer
from spacy.tokens import Doc

from ..layers import ClassCalibration, is_pooled_textcat, set_calibration, uncalibrated
from ..tagging import Calibration, Curve
from .curves import FOLDS, NEAR, NO_BETTER, STEPS, TO_NONE, Fitted, fit_curve
from .evidence import Evidence

# Probabilities are clipped to this minimum.
TINY = 1e-30


def is_class_head(pipe: Any) -> bool:
    """Whether a component is a classifier whose model can hold a calibration."""
    return isinstance(pipe, TextCategorizer) and is_pooled_textcat(pipe.model)


def has_exclusive_classes(pipe: TextCategorizer) -> bool:
    """Whether its classes exclude each other."""
    return not pipe.model.attrs["multi_label"]


def evidence_of_classes(pipe: TextCategorizer, docs: Sequence[Doc], gold: Sequence[Doc]) -> Evidence | None:
    """What a classifier predicts for documents before any calibration: one candidate per document and class.

    If classes are exclusive, the best candidates are each document's most probable class, and documents without a class
    that the head knows are left out. Otherwise all candidates are best ones, and classes for which a document was not
    annotated are left out.

    docs (Sequence[Doc]): Documents as input of the head.
    gold (Sequence[Doc]): The annotated documents, in the same order.
    RETURNS (Evidence | None): None if no document has annotation.
    """
    labels = pipe.labels
    truth = np.array([[doc.cats.get(label, np.nan) for label in labels] for doc in gold], dtype=np.float64)
    truth = truth.reshape(len(gold), len(labels))
    unknown = sum(bool(value) and name not in labels for doc in gold for name, value in doc.cats.items())
    if has_exclusive_classes(pipe):
        truth = np.nan_to_num(truth)
        kept = (truth > 0.5).any(axis=1)
    else:
        kept = ~np.isnan(truth).all(axis=1)
    kept &= np.array([len(doc) > 0 for doc in docs], dtype=bool)
    if not kept.any():
        return None
    chosen = [doc for doc, here in zip(docs, kept, strict=True) if here]
    with uncalibrated(pipe.model):
        scores = np.asarray(pipe.model.ops.to_numpy(pipe.predict(chosen)), dtype=np.float64)
    truth = truth[kept]
    right = truth > 0.5
    best = np.ones(scores.shape, dtype=bool)
    if has_exclusive_classes(pipe):
        best = np.arange(len(labels)) == scores.argmax(axis=1)[:, None]
    document, label = np.indices(scores.shape).reshape(2, -1)
    evidence = Evidence(
        labels, right.astype(np.int64), unknown, document, label, scores.ravel(), right.ravel(), best.ravel()
    )
    return evidence.where(~np.isnan(truth).ravel())


def fit_classes(evidence: Evidence, exclusive: bool) -> Fitted:
    """The curves of a classifier: a temperature where classes exclude each other, else those of `fit_curve`.

    evidence (Evidence): From `evidence_of_classes`.
    RETURNS (Fitted): The curve of a temperature T has a = b = 1 / T.
    """
    return _fit_temperature(evidence) if exclusive else fit_curve(evidence)


def probabilities_of_classes(evidence: Evidence, fitted: Fitted, exclusive: bool) -> np.ndarray:
    """The calibrated probabilities of the written candidates, shape (candidates,)."""
    written = evidence.written
    if not exclusive:
        curves = Calibration(fitted.curve, fitted.by_label)
        return curves.probabilities(written.score, written.label, written.labels)
    return _softmax(fitted.curve.a * _scores(evidence)).max(axis=1)


def set_curves(pipe: TextCategorizer, fitted: Fitted) -> None:
    """Set the fitted curves of a classifier."""
    if has_exclusive_classes(pipe):
        calibration = ClassCalibration(temperature=1 / fitted.curve.a)
    else:
        curves = [fitted.by_label.get(label, fitted.curve) for label in pipe.labels]
        calibration = ClassCalibration(curves=[[curve.a, curve.b, curve.c] for curve in curves])
    set_calibration(pipe.model, calibration)


def _fit_temperature(evidence: Evidence) -> Fitted:
    """The temperature with the smallest log loss, if it improves the log loss of held-out documents in five folds."""
    scores = _scores(evidence)
    truth = evidence.right.reshape(scores.shape).argmax(axis=1)
    top, fold = scores.argmax(axis=1), np.arange(len(scores)) % FOLDS
    held_out, of_truth = np.empty(len(scores)), np.empty(len(scores))
    for number in range(FOLDS):
        chosen = np.flatnonzero(fold == number)
        shares = _softmax(_slope(scores[fold != number], truth[fold != number]) * scores[chosen])
        rows = np.arange(len(chosen))
        held_out[chosen] = shares[rows, top[chosen]]
        of_truth[chosen] = np.clip(shares[rows, truth[chosen]], TINY, None)
    every = np.arange(len(scores))
    losses = {"none": float(-scores[every, truth].mean()), "temperature": float(-np.log(of_truth).mean())}
    if losses["temperature"] > losses["none"] - NO_BETTER:
        return Fitted("none", False, Curve(), {}, losses, np.exp(scores[every, top]))
    slope = _slope(scores, truth)
    return Fitted("temperature", False, Curve(slope, slope), {}, losses, held_out)


def _scores(evidence: Evidence) -> np.ndarray:
    """Scores of shape (documents, classes), each row up to an additive constant, which softmax removes."""
    return np.log(np.clip(evidence.score, TINY, None)).reshape(evidence.gold.shape)


def _slope(scores: np.ndarray, truth: np.ndarray) -> float:
    """1 / T, by Newton's method on the log loss of softmax(scores / T), which is convex in it.

    It is drawn to 1 with the weight of `TO_NONE` documents, so that few documents change little.
    """
    of_truth = scores[np.arange(len(scores)), truth]
    slope = 1.0
    for _ in range(STEPS):
        p = _softmax(slope * scores)
        mean = (p * scores).sum(axis=1)
        gradient = (mean - of_truth).sum() + TO_NONE * (slope - 1)
        curvature = ((p * scores**2).sum(axis=1) - mean**2).sum() + TO_NONE
        # At most half or double per step: far from the minimum a step may be too long.
        new = float(np.clip(slope - gradient / curvature, slope / 2, slope * 2))
        slope, before = new, slope
        if abs(slope - before) <= NEAR:
            break
    return slope


def _softmax(scores: np.ndarray) -> np.ndarray:
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)
