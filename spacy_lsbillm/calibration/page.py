"""The results of a calibration, as lines in Markdown and as an HTML page."""

import html
from typing import Any

import numpy as np

from ..pages import BLUE, GREY, ORANGE, as_page, markdown_as_html, pyplot, svg
from ..tagging.confidence import equal_mass_bins
from .guarantees import Guarantee
from .run import CLASSES, Report
from .thresholds import kept_and_right

NOT_COVERED = (
    "A guarantee holds for documents from the same distribution as the development set. It does not cover other "
    "data: another source, time, language or annotation scheme, or a pipeline that was trained further. Nor does it "
    "cover a single document, one kind of documents or one label, unless it was requested per label: it is about all "
    "of them together. And gold is what the annotators considered right."
)


def as_html(reports: dict[str, Report], about: str) -> str:
    """Create one page for all heads.

    about (str): The pipeline and the documents, for the title.
    """
    parts = [f"<h1>{html.escape(about)}</h1>"]
    for name, report in reports.items():
        parts += [
            f"<h2>{html.escape(name)}</h2>",
            markdown_as_html("\n".join(in_words(report))),
            _reliability(report),
            f"<p>{report.decisions.capitalize()} in 15 groups of equal size, sorted by score. On the line, scores "
            f"equal the fraction that is right. Grey: uncalibrated; blue: calibrated, each by curves that were fitted "
            f"without its document.</p>",
            _precision_and_recall(report),
            f"<p>For the {report.decisions} that are written, as the threshold rises from right to left.</p>",
            markdown_as_html(by_label(report)),
        ]
    parts += ["<h2>What it does not cover</h2>", f"<p>{html.escape(NOT_COVERED)}</p>"]
    return as_page(about, parts)


def in_words(report: Report) -> list[str]:
    """The results as lines of a list in Markdown."""
    evidence, fitted = report.evidence, report.fitted
    losses = ", ".join(f"{kind} {loss:.4f}" for kind, loss in fitted.losses.items())
    written, gold = int(evidence.best.sum()), int(evidence.gold.sum())
    lines = [
        f"- {written:,} {report.decisions} in {len(evidence.gold):,} documents, {gold:,} gold.",
        f"- Curve: {fitted.in_words}. Log loss on held-out documents: {losses}.",
        f"- Expected calibration error: {report.before:.3f} before, {report.after:.3f} after (held-out documents).",
    ]
    if report.thresholds is not None:
        missed = [label for label, one in report.thresholds.items() if not one.reached]
        lines.append(
            "- Thresholds: every label reaches the target on the development set."
            if not missed
            else f"- Thresholds: not reached on the development set by {', '.join(missed)}."
        )
    if report.thresholds is not None and report.decisions == CLASSES:
        lines.append("- They are not applied: doc.cats has the probabilities of all classes, for you to compare.")
    if report.guarantee is not None:
        lines.append(f"- {promise(report.guarantee)}")
        lines.append(
            f"- Candidates are in doc.spans[{report.key!r}]: "
            f"{report.guarantee.per_document:.1f} per document on the development set, where their mean recall is "
            f"{min(report.guarantee.found.values()):.3f}."
        )
    return lines


def promise(given: Guarantee) -> str:
    """A guarantee in a sentence: what holds, and with which confidence."""
    of_what = "of each label " if "" not in given.found else ""
    holds = (
        "in expectation (conformal risk control)"
        if given.delta is None
        else f"with confidence {1 - given.delta:g} (Learn-then-Test)"
    )
    return (
        f"Guaranteed {holds}: of the entities {of_what}in a document that has some, on average a fraction of "
        f"{given.recall:g} or more is among the candidates; from {min(given.documents.values()):,} documents."
    )


def by_label(report: Report) -> str:
    """The results by label as a table in Markdown."""
    evidence, fitted = report.evidence, report.fitted
    written = evidence.written
    lines = [
        "| label | gold | written | right | mean score | calibrated | curve | threshold | precision | recall | "
        "candidates from |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for i, label in enumerate(evidence.labels):
        own = written.label == i
        one = None if report.thresholds is None else report.thresholds[label]
        cells: list[Any] = [
            label.replace("|", "\u2758"),
            f"{int(evidence.gold[:, i].sum()):,}",
            f"{int(own.sum()):,}",
            _share(written.right[own]),
            _share(written.score[own]),
            _share(fitted.held_out[own]),
            "own" if label in fitted.by_label else "of all",
            "" if one is None else f"{one.value:.3f}" + ("" if one.own else " (of all)"),
            "" if one is None else _figure(one.precision),
            "" if one is None else _figure(one.recall),
            "" if report.guarantee is None else f"{report.guarantee.threshold[label]:.2g}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(values: np.ndarray) -> str:
    return f"{values.mean():.3f}" if len(values) else "-"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _reliability(report: Report) -> str:
    figure, axes = pyplot().subplots(figsize=(5, 5), layout="constrained")
    written = report.evidence.written
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.6)
    for scores, colour, label in ((written.score, GREY, "before"), (report.fitted.held_out, BLUE, "calibrated")):
        said, was = equal_mass_bins(scores, written.right.astype(np.float64))
        axes.plot(said, was, "o-", color="#888888" if colour == GREY else colour, label=label, linewidth=1)
    axes.set_xlabel("mean score of a group")
    axes.set_ylabel("fraction of the group that is right")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.grid(linewidth=0.4)
    axes.legend(loc="upper left")
    return svg(figure)


def _precision_and_recall(report: Report) -> str:
    figure, axes = pyplot().subplots(figsize=(7, 4), layout="constrained")
    written = report.evidence.written
    values, kept, hits = kept_and_right(report.probabilities, written.right)
    precision, recall = hits / kept, hits / max(int(written.gold.sum()), 1)
    axes.plot(recall, precision, color=BLUE)
    for wanted in (0.5, 0.7, 0.9):
        within = np.flatnonzero(values >= wanted)
        if len(within):
            at = within[-1]
            axes.plot(recall[at], precision[at], "o", color="black", markersize=4)
            axes.annotate(f"{wanted:g}", (recall[at], precision[at]), xytext=(4, 4), textcoords="offset points")
    for label, one in (report.thresholds or {}).items():
        if one.precision is not None and one.recall is not None:
            axes.plot(one.recall, one.precision, "x", color=ORANGE)
            axes.annotate(
                label,
                (one.recall, one.precision),
                fontsize=7,
                xytext=(3, 3),
                textcoords="offset points",
                # Dollar signs in a label do not enclose a formula.
                parse_math=False,
            )
    axes.set_xlabel("recall of all labels together" + ("; crosses: of one label" if report.thresholds else ""))
    axes.set_ylabel("precision")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.03)
    axes.grid(linewidth=0.4)
    return svg(figure)
