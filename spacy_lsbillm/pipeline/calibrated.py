"""Components whose span scores can be calibrated."""

import warnings
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Optimizer

from ..errors import SettingError, in_short
from ..tagging import Calibration, Spans
from .gold_spans import characters_of_gold
from .label_sets import is_judged
from .span_component import SpanComponent
from .span_writing import Predicted, by_document, scores_of_entities, write_group

# The key of a pipeline's meta for the results of `calibrate`, by component.
META = "calibration"


class CalibratedComponent(SpanComponent):
    """A component that applies the results of `spacy lsbillm calibrate`."""

    # Settings of prediction: whether spans get scores, and whether a calibration is applied to them.
    scores: bool = True
    calibrated: bool = True
    # The pipeline's meta: a calibration that is dropped is removed there as well.
    meta: dict[str, Any] | None = None

    @abstractmethod
    def find(self, docs: Sequence[Doc], least: float | None = None) -> Predicted:
        """Find spans by the model's probabilities, before calibration and thresholds.

        least (float | None): Also find all candidates of at least this probability; None: no candidates.
        """

    def _left_out_below(self, calibration: Calibration | None) -> float | dict[str, float] | None:
        """The probability below which spans are dropped, for all labels or by label."""
        return None if calibration is None else calibration.threshold

    @property
    def calibration(self) -> Calibration | None:
        """The results of `calibrate`, whether they are applied or not; None if there are none."""
        stored = self.cfg.get("calibration")
        return None if stored is None else Calibration.from_dict(stored)

    @calibration.setter
    def calibration(self, stored: Calibration | None) -> None:
        self.cfg.pop("calibration", None)
        if stored is not None:
            self.cfg["calibration"] = stored.as_dict()

    def finish_update(self, sgd: Optimizer) -> None:
        """Update the weights.

        A calibration is only valid for the weights for which it was computed, and is dropped with a warning.
        """
        if self.calibration is not None:
            self._forget_calibration()
            warnings.warn(
                f"{self.name!r} was calibrated and is now trained further: its calibration is dropped, with thresholds "
                f"and candidates, as it is not valid for other weights. Calibrate the pipeline again after "
                f"training: python -m spacy lsbillm calibrate PIPELINE DEV --output OUTPUT.",
                stacklevel=3,
            )
        super().finish_update(sgd)

    def _forget_calibration(self) -> None:
        self.calibration = None
        of_heads = (self.meta or {}).get(META, {})
        if of_heads.pop(self.name, None) is not None and not of_heads and self.meta is not None:
            del self.meta[META]

    def predict(self, docs: Sequence[Doc]) -> Predicted:
        """Predict the spans of all documents, with their probabilities.

        Tokens of white space are ignored: a span continues across them, and never begins or ends with one.
        """
        calibration = self.calibration if self.calibrated and self.scores else None
        least = None if calibration is None else calibration.candidates_from
        predicted = self.find(docs, min(least.values()) if least else None)
        spans, candidates = predicted.spans, predicted.candidates
        if calibration is not None:
            spans = _with_probabilities(spans, calibration, self.labels)
            if candidates is not None:
                assert least is not None
                candidates = candidates.where(candidates.score >= self._least(least)[candidates.label])
                candidates = _with_probabilities(candidates, calibration, self.labels)
        threshold = self._left_out_below(calibration)
        if threshold:
            spans = spans.where(spans.score >= self._least(threshold)[spans.label])
        return replace(predicted, spans=spans, candidates=candidates)

    def _least(self, threshold: float | dict[str, float]) -> np.ndarray:
        """The threshold of each label.

        RAISES (SettingError): A threshold is for a label that the component does not have.
        """
        if not isinstance(threshold, dict):
            return np.full(len(self.labels), threshold)
        unknown = sorted(set(threshold) - set(self.labels))
        if unknown:
            raise SettingError(
                f"threshold of {self.name!r} names labels that it does not have: {in_short(unknown)}. It has: "
                f"{in_short(self.labels)}."
            )
        return np.array([threshold.get(label, 0.0) for label in self.labels])

    def _write_candidates(self, docs: Sequence[Doc], predicted: Predicted) -> None:
        if predicted.candidates is None:
            return
        calibration = self.calibration
        assert calibration is not None and calibration.candidates_key is not None
        for doc, spans, scores in by_document(docs, predicted.candidates, predicted.first, self.labels):
            write_group(doc, calibration.candidates_key, spans, scores)

    def _check_calibration(self) -> None:
        """Check the labels of the calibration. RAISES (SettingError): The component does not have one of them."""
        if (calibration := self.calibration) is not None:
            for by_label in (calibration.threshold, calibration.candidates_from, calibration.by_label):
                self._least(dict.fromkeys(by_label, 0.0))


def _with_probabilities(spans: Spans, calibration: Calibration, labels: tuple[str, ...]) -> Spans:
    return replace(spans, score=calibration.probabilities(spans.score, spans.label, labels))


def scores_and_truth(examples: Iterable[Example], spans_key: str | None) -> tuple[np.ndarray, np.ndarray]:
    """The scores of all predicted spans, in documents that have annotation, and whether they are gold spans.

    RETURNS (tuple[ndarray[float64], ndarray[bool]]): One entry per span.
    """
    scores: list[float] = []
    right: list[bool] = []
    for example in examples:
        gold = characters_of_gold(example.reference, spans_key)
        if gold is None:
            continue
        doc = example.predicted
        if spans_key is None:
            pairs = [(span, score) for span, score in zip(doc.ents, scores_of_entities(doc), strict=True)]
        else:
            group = doc.spans.get(spans_key, [])
            pairs = list(zip(group, getattr(group, "attrs", {}).get("scores") or [None] * len(group), strict=True))
        for span, score in pairs:
            if score is not None and is_judged(span.label_, example.reference):
                scores.append(score)
                right.append((span.start_char, span.end_char, span.label_) in gold)
    return np.array(scores, dtype=np.float64), np.array(right, dtype=bool)
