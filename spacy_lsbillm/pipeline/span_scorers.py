"""Scores of spans: spaCy's own, and the expected calibration error of the spans' probabilities."""

from collections.abc import Callable, Iterable
from typing import Any

from spacy.scorer import get_ner_prf
from spacy.training import Example

from ..tagging import calibration_error
from .calibrated import scores_and_truth
from .gold_spans import score_group, with_trimmed_spans
from .label_sets import with_judged_spans

DEFAULT_KEY = "sc"


def make_sequence_labeler_scorer() -> Callable[..., dict[str, Any]]:
    """Create a scorer with spaCy's own scores of entities, or of spans if the component writes those."""
    return sequence_labeler_score


def sequence_labeler_score(examples: Iterable[Example], spans_key: str | None = None, **kwargs: Any) -> dict[str, Any]:
    """Score spans with their labels: precision, recall and F1, micro-averaged and per label.

    The expected calibration error of the spans' scores is computed as well. White space at the ends of gold spans is
    ignored, and so are predicted spans whose label the gold document was not annotated for.
    """
    examples = [with_trimmed_spans(example, spans_key) for example in examples]
    error = calibration_error(*scores_and_truth(examples, spans_key))
    examples = [with_judged_spans(example, spans_key) for example in examples]
    if spans_key is None:
        return {**get_ner_prf(examples, **kwargs), "ents_ece": error}
    return {**score_group(examples, spans_key, **kwargs), f"spans_{spans_key}_ece": error}


def make_span_labeler_scorer() -> Callable[..., dict[str, Any]]:
    """Create a scorer with spaCy's own scores of spans, which may overlap."""
    return span_labeler_score


def span_labeler_score(examples: Iterable[Example], spans_key: str = DEFAULT_KEY, **kwargs: Any) -> dict[str, Any]:
    """Score spans with their labels: precision, recall and F1, micro-averaged and per label.

    The expected calibration error of the spans' scores is computed as well. White space at the ends of gold spans is
    ignored, and so is a predicted span with a label that the gold document was not annotated for.
    """
    examples = list(examples)
    error = calibration_error(*scores_and_truth(examples, spans_key))
    examples = [with_judged_spans(example, spans_key) for example in examples]
    return {**score_group(examples, spans_key, **kwargs), f"spans_{spans_key}_ece": error}
