"""Calibrating the heads of a pipeline."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np
from spacy.language import Language
from spacy.training import Example

from ..errors import DataError, SettingError, in_short
from ..pipeline.calibrated import META, CalibratedComponent
from ..tagging import Calibration, calibration_error
from ..values import check_choice
from .classes import fit_classes, has_exclusive_classes, is_class_head, probabilities_of_classes, set_curves
from .curves import Fitted, fit_curve
from .evidence import FLOOR, Evidence
from .gathering import gather
from .guarantees import Guarantee, guarantee
from .settings import CalibrationSettings
from .thresholds import Threshold, thresholds

# With fewer spans or classes their probabilities cannot be estimated.
LEAST = 50
SPANS, CLASSES = "spans", "classes"


@dataclass(frozen=True)
class Report:
    """The results for a head.

    decisions (str): What it gives probabilities for, in the plural, such as "spans".
    evidence (Evidence): The predictions on which the results are based.
    fitted (Fitted): The curves.
    probabilities (ndarray[float64]): The probabilities of the written candidates by these curves.
    before (float), after (float): The expected calibration error of what the head writes; after: by curves that were
        fitted without its documents.
    thresholds (dict[str, Threshold] | None): By label, if a precision or a recall was requested. Those of a classifier
        are not applied, as `doc.cats` has all classes.
    guarantee (Guarantee | None): For spans, if one was requested.
    key (str | None): The group of spans for the candidates.
    """

    decisions: str
    evidence: Evidence
    fitted: Fitted
    probabilities: np.ndarray
    before: float
    after: float
    thresholds: dict[str, Threshold] | None = None
    guarantee: Guarantee | None = None
    key: str | None = None

    @property
    def calibration(self) -> Calibration:
        """The calibration to set in a span head."""
        return Calibration(
            self.fitted.curve,
            self.fitted.by_label,
            {label: one.value for label, one in (self.thresholds or {}).items()},
            self.key,
            {} if self.guarantee is None else self.guarantee.threshold,
        )


def heads_of(nlp: Language, chosen: Sequence[str] = ()) -> list[str]:
    """The names of the components that can be calibrated.

    chosen (Sequence[str]): Only these; empty: all.
    RAISES (SettingError): There is none, a chosen one cannot be calibrated, or its scores are switched off.
    """
    calibrated = {
        name: pipe for name, pipe in nlp.pipeline if isinstance(pipe, CalibratedComponent) or is_class_head(pipe)
    }
    if not calibrated:
        raise SettingError(
            f"the pipeline has no sequence_labeler, no span_labeler, and no textcat or textcat_multilabel with "
            f"spacy-lsbillm.PooledTextCat.v1, which alone can be calibrated; it has: {in_short(nlp.pipe_names)}."
        )
    for name in chosen:
        check_choice("--component", name, calibrated)
    heads = {name: pipe for name, pipe in calibrated.items() if not chosen or name in chosen}
    for name, pipe in heads.items():
        if isinstance(pipe, CalibratedComponent) and not pipe.scores:
            raise SettingError(f"{name!r} has scores = false, so it gives no scores to calibrate. Set it to true.")
    return list(heads)


def calibrate(nlp: Language, examples: Iterable[Example], settings: CalibrationSettings) -> dict[str, Report]:
    """Find the curves, thresholds and guarantees of the heads, and store them in the heads and in the pipeline's meta.

    An existing calibration of a head is replaced. Heads for which no document has annotation get a warning and do not
    change, unless they were chosen.

    examples (Iterable[Example]): Annotated documents that the pipeline was not trained with.
    RAISES (SettingError): No head can be calibrated.
    RAISES (DataError): There is too little annotation.
    RETURNS (dict): A report by head.
    """
    heads = heads_of(nlp, settings.components)
    of_spans = [name for name in heads if isinstance(nlp.get_pipe(name), CalibratedComponent)]
    _check_guarantee(nlp, heads, of_spans, settings)
    evidence_of = gather(nlp, heads, examples, None if settings.guarantee is None else FLOOR)
    without = [name for name in heads if name not in evidence_of]
    for name in without:
        problem = f"no document has annotation for {name!r}: {_where(nlp, name)} is missing in all of them."
        if settings.components or not evidence_of:
            raise DataError(problem)
        warnings.warn(f"{problem} It does not change.", stacklevel=2)
    reports = {}
    for name, evidence in evidence_of.items():
        try:
            key = _key(of_spans, name, settings) if settings.guarantee is not None and name in of_spans else None
            reports[name] = _report(name, nlp.get_pipe(name), evidence, settings, key)
        except DataError as error:
            raise DataError(f"{name!r}: {error}") from error
    for name, report in reports.items():
        pipe: Any = nlp.get_pipe(name)
        if isinstance(pipe, CalibratedComponent):
            pipe.calibration = report.calibration
        else:
            set_curves(pipe, report.fitted)
    nlp.meta[META] = {**nlp.meta.get(META, {}), **{name: summary(report) for name, report in reports.items()}}
    return reports


def summary(report: Report) -> dict[str, Any]:
    """The results as stored in a pipeline's meta."""
    content: dict[str, Any] = {
        "documents": len(report.evidence.gold),
        report.decisions: int(report.evidence.best.sum()),
        "curve": report.fitted.in_words,
        "ece_before": report.before,
        "ece_after": report.after,
    }
    if report.thresholds is not None:
        content["threshold"] = {label: asdict(one) for label, one in report.thresholds.items()}
    if report.guarantee is not None:
        content["guarantee"] = {**asdict(report.guarantee), "spans_key": report.key}
    return content


def _report(name: str, pipe: Any, evidence: Evidence, settings: CalibrationSettings, key: str | None) -> Report:
    written = evidence.written
    decisions = SPANS if isinstance(pipe, CalibratedComponent) else CLASSES
    _check_enough(name, written, decisions)
    if decisions == SPANS:
        fitted = fit_curve(written)
        probabilities = Calibration(fitted.curve, fitted.by_label).probabilities(
            written.score, written.label, written.labels
        )
    else:
        fitted = fit_classes(evidence, has_exclusive_classes(pipe))
        probabilities = probabilities_of_classes(evidence, fitted, has_exclusive_classes(pipe))
    probabilities = probabilities.astype(np.float64)
    given: dict[str, Threshold] | None = None
    if settings.precision is not None or settings.recall is not None:
        given = thresholds(written, probabilities, precision=settings.precision, recall=settings.recall)
    promised: Guarantee | None = None
    if key is not None:
        assert settings.guarantee is not None
        promised = guarantee(evidence, settings.guarantee, settings.delta, settings.per_label)
    before, after = (calibration_error(scores, written.right) for scores in (written.score, fitted.held_out))
    assert before is not None and after is not None
    return Report(decisions, evidence, fitted, probabilities, before, after, given, promised, key)


def _check_enough(name: str, written: Evidence, decisions: str) -> None:
    if written.unknown:
        warnings.warn(
            f"{written.unknown:,} gold {decisions} have labels that {name!r} does not have: its results do "
            f"not include them.",
            stacklevel=4,
        )
    number, documents = len(written.score), len(written.gold)
    if number < LEAST:
        enough = f"about {ceil(documents * LEAST / number):,} documents" if number else "more documents"
        raise DataError(
            f"it finds {number:,} {decisions} in {documents:,} annotated documents, too few to estimate how often it "
            f"is right: {LEAST} are needed, in {enough} like these."
        )


def _key(heads: list[str], name: str, settings: CalibrationSettings) -> str:
    """The group of spans for a head's candidates, which differs between heads."""
    return settings.key if len(heads) == 1 else f"{settings.key}_{name}"


def _check_guarantee(nlp: Language, heads: list[str], of_spans: list[str], settings: CalibrationSettings) -> None:
    if settings.guarantee is None:
        return
    if not of_spans:
        raise SettingError(
            f"a recall can be guaranteed only for spans, but these heads are classifiers: {in_short(heads)}. Leave "
            f"the guarantee out."
        )
    taken = {getattr(pipe, "spans_key", None) or getattr(pipe, "key", None): name for name, pipe in nlp.pipeline}
    for name in of_spans:
        key = _key(of_spans, name, settings)
        if key in taken:
            raise SettingError(
                f"candidates cannot go to doc.spans[{key!r}]: {taken[key]!r} writes there. Name another key."
            )


def _where(nlp: Language, name: str) -> str:
    pipe = nlp.get_pipe(name)
    if is_class_head(pipe):
        return "doc.cats"
    key = getattr(pipe, "spans_key", None)
    return "doc.ents" if key is None else f"doc.spans[{key!r}]"
