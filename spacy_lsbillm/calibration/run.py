"""Calibrating the heads of a pipeline."""

import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np
from spacy.language import Language
from spacy.training import Example

from ..errors import DataError, SettingError, in_short
from ..pipeline.calibrated import META, CalibratedComponent
from ..tagging import Calibration, calibration_error
from .curves import Fitted, fit
from .evidence import FLOOR, Evidence, gather
from .guarantees import Guarantee, guarantee
from .settings import CalibrationSettings
from .thresholds import Threshold, thresholds

# With fewer spans nothing can be said of how probable they are.
LEAST_SPANS = 50


@dataclass(frozen=True)
class Report:
    """What was found for a head.

    evidence (Evidence): What it rests on.
    fitted (Fitted): The curves.
    calibration (Calibration): What the head got.
    before (float), after (float): The expected calibration error of the spans it writes; after: by curves that were
        fitted without their documents.
    thresholds (dict[str, Threshold] | None): By label, where a precision or a recall is wanted.
    guarantee (Guarantee | None): Where one is.
    """

    evidence: Evidence
    fitted: Fitted
    calibration: Calibration
    before: float
    after: float
    thresholds: dict[str, Threshold] | None
    guarantee: Guarantee | None


def heads_of(nlp: Language) -> list[str]:
    """The names of the components that can be calibrated.

    RAISES (SettingError): There is none, or one whose scores are switched off.
    """
    found = {name: pipe for name, pipe in nlp.pipeline if isinstance(pipe, CalibratedComponent)}
    if not found:
        raise SettingError(
            f"the pipeline has no sequence_labeler and no span_labeler, which alone can be calibrated; it has: "
            f"{in_short(nlp.pipe_names)}."
        )
    for name, pipe in found.items():
        if not pipe.scores:
            raise SettingError(f"scores = false of {name!r}: it gives no scores to calibrate. Set it to true.")
    return list(found)


def calibrate(nlp: Language, examples: Iterable[Example], settings: CalibrationSettings) -> dict[str, Report]:
    """Find what makes probabilities of the scores of all heads, and give it to them and to the pipeline's meta. A
    calibration that a head has is replaced.

    examples (Iterable[Example]): Annotated documents that the pipeline was not trained with.
    RAISES (SettingError): No head can be calibrated.
    RAISES (DataError): There is too little annotation.
    RETURNS (dict): By head.
    """
    heads = heads_of(nlp)
    _check_keys(nlp, heads, settings)
    found = gather(nlp, heads, examples, None if settings.guarantee is None else FLOOR)
    reports = {}
    for name in heads:
        if name not in found:
            raise DataError(f"no document has annotation for {name!r}: {_where(nlp, name)} is missing in all of them.")
        try:
            reports[name] = _report(name, found[name], settings, _key(heads, name, settings))
        except DataError as error:
            raise DataError(f"{name!r}: {error}") from error
    for name, report in reports.items():
        pipe = nlp.get_pipe(name)
        assert isinstance(pipe, CalibratedComponent)
        pipe.calibration = report.calibration
    nlp.meta[META] = {name: summary(report) for name, report in reports.items()}
    return reports


def summary(report: Report) -> dict[str, Any]:
    """What a pipeline's meta says of it."""
    content: dict[str, Any] = {
        "documents": len(report.evidence.gold),
        "spans": int(report.evidence.best.sum()),
        "curve": report.fitted.in_words,
        "ece_before": report.before,
        "ece_after": report.after,
    }
    if report.thresholds is not None:
        content["threshold"] = {label: asdict(one) for label, one in report.thresholds.items()}
    if report.guarantee is not None:
        content["guarantee"] = {**asdict(report.guarantee), "spans_key": report.calibration.candidates_key}
    return content


def _report(name: str, evidence: Evidence, settings: CalibrationSettings, key: str) -> Report:
    written = evidence.written
    _check_enough(name, written)
    fitted = fit(written)
    curves = Calibration(fitted.curve, fitted.by_label)
    given: dict[str, Threshold] | None = None
    if settings.precision is not None or settings.recall is not None:
        probabilities = curves.probabilities(written.score, written.label, written.labels).astype(np.float64)
        given = thresholds(written, probabilities, precision=settings.precision, recall=settings.recall)
    promised: Guarantee | None = None
    if settings.guarantee is not None:
        promised = guarantee(evidence, settings.guarantee, settings.delta, settings.per_label)
    calibration = Calibration(
        fitted.curve,
        fitted.by_label,
        {} if given is None else {label: one.value for label, one in given.items()},
        None if promised is None else key,
        {} if promised is None else promised.threshold,
    )
    before, after = (calibration_error(scores, written.right) for scores in (written.score, fitted.held_out))
    assert before is not None and after is not None
    return Report(evidence, fitted, calibration, before, after, given, promised)


def _check_enough(name: str, written: Evidence) -> None:
    if written.unknown:
        warnings.warn(
            f"{written.unknown:,} gold spans have labels that {name!r} does not have: what is found for it does not "
            f"count them.",
            stacklevel=4,
        )
    spans, documents = len(written.score), len(written.gold)
    if spans < LEAST_SPANS:
        enough = f"about {ceil(documents * LEAST_SPANS / spans):,} documents" if spans else "more documents"
        raise DataError(
            f"it finds {spans:,} spans in {documents:,} annotated documents, too few to say how often it is right: it "
            f"takes {LEAST_SPANS}, in {enough} like these."
        )


def _key(heads: list[str], name: str, settings: CalibrationSettings) -> str:
    """Candidates of several heads do not go to one place."""
    return settings.key if len(heads) == 1 else f"{settings.key}_{name}"


def _check_keys(nlp: Language, heads: list[str], settings: CalibrationSettings) -> None:
    if settings.guarantee is None:
        return
    taken = {getattr(pipe, "spans_key", None) or getattr(pipe, "key", None): name for name, pipe in nlp.pipeline}
    for name in heads:
        key = _key(heads, name, settings)
        if key in taken:
            raise SettingError(
                f"candidates cannot go to doc.spans[{key!r}]: {taken[key]!r} writes there. Name another key."
            )


def _where(nlp: Language, name: str) -> str:
    key = getattr(nlp.get_pipe(name), "spans_key", None)
    return "doc.ents" if key is None else f"doc.spans[{key!r}]"
