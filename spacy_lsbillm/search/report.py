"""What a search found: a table, a file for machines, a config, and a page to look at."""

import html
import io
import json
import os
from pathlib import Path
from typing import Any

from ..backbone import MaskPlan
from ..errors import SettingError
from .extension import LEVEL, Extension
from .prediction import Prediction
from .run import Outcome, Row
from .trials import Subject

BIDIRECTIONAL, CAUSAL, CHOSEN = "#0072B2", "#DDDDDD", "#D55E00"
LAYERS_AS = "Layer 0 is next to the input. In a bit string the first bit is the group next to the input."


def as_json(outcome: Outcome, subject: Subject, about: dict[str, Any]) -> str:
    """The result file.

    about (dict): What else it should say: versions, corpora, strategy.
    """
    content = {
        "chosen": outcome.chosen,
        "chosen_layers": MaskPlan.parse(outcome.chosen, subject.n_layers).words,
        "steps": outcome.steps,
        "grid_steps": outcome.grid_steps,
        "rows": _rows_as_dicts(outcome.rows, subject),
        "shared": _rows_as_dicts(outcome.shared, subject),
        "test": [
            {"mask": one.mask, "scores": one.scores, "layers": words_for(one.mask, subject.n_layers)}
            for one in outcome.tested
        ],
        "differences_on_test": {mask: vars(one) for mask, one in outcome.differences.items()},
        "extension": extension_as_dict(outcome.extension, subject.n_layers),
        **about,
    }
    return json.dumps(content, indent=1) + "\n"


def _rows_as_dicts(rows: list[Row], subject: Subject) -> list[dict[str, Any]]:
    return [
        {**vars(row), "mean": row.mean, "spread": row.spread, "layers": words_for(row.mask, subject.n_layers)}
        for row in rows
    ]


def as_markdown(outcome: Outcome, subject: Subject) -> str:
    """The tables, best mask first among those with as many and as long trainings."""
    lines = ["| mask | layers | steps | dev | a seed | seconds |", "|---|---|---|---|---|---|"]
    for row in sorted(outcome.rows, key=lambda row: (-row.steps, -len(row.scores), -row.mean)):
        mark = " (chosen)" if row.mask == outcome.chosen and row.steps == subject.steps else ""
        seeds = ", ".join(f"{100 * score:.2f}" for score in row.scores)
        lines.append(
            f"| {row.mask}{mark} | {words_for(row.mask, subject.n_layers)} | {row.steps} "
            f"| {_percent(row)} | {seeds} | {row.seconds:.0f} |"
        )
    if outcome.shared:
        first = outcome.shared[0]
        lines += [
            "",
            f"Trainings that all masks share: {len(first.scores)} of {first.steps} steps, {first.seconds:.0f} seconds.",
            "",
            "| mask | layers | dev | a seed |",
            "|---|---|---|---|",
        ]
        for row in sorted(outcome.shared, key=lambda row: -row.mean):
            seeds = ", ".join(f"{100 * score:.2f}" for score in row.scores)
            layers = words_for(row.mask, subject.n_layers)
            lines.append(f"| {row.mask} | {layers} | {_percent(row)} | {seeds} |")
    lines += ["", f"Steps of training: {outcome.steps:,}, {outcome.steps / outcome.grid_steps:.0%} of the full grid's."]
    if outcome.tested:
        lines += ["", "| test | mean | a seed | chosen less this (95%) | p |", "|---|---|---|---|---|"]
        for one in outcome.tested:
            seeds = ", ".join(f"{100 * score:.2f}" for score in one.scores)
            mean = sum(one.scores) / len(one.scores)
            difference = outcome.differences.get(one.mask)
            told = ("", "")
            if difference is not None:
                span = f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}"
                told = (f"{100 * difference.mean:+.2f} ({span})", f"{difference.p:.3f}")
            lines.append(f"| {one.mask} | {100 * mean:.2f} | {seeds} | {told[0]} | {told[1]} |")
        if not outcome.differences and len(outcome.tested) > 1:
            lines += ["", "No paired test: this score has no counts a document."]
    lines += extension_lines(outcome.extension, subject.n_layers)
    return "\n".join([*lines, "", LAYERS_AS, ""])


def extension_as_dict(extension: Extension | None, n_layers: int) -> dict[str, Any] | None:
    """The paired test for the result file."""
    if extension is None:
        return None
    pairs = [
        {
            **vars(pair),
            "layers_before": words_for(pair.before, n_layers),
            "layers_after": words_for(pair.after, n_layers),
        }
        for pair in extension.pairs
    ]
    return {"mean": extension.mean, "p": extension.p, "p_permuted": extension.p_permuted, "pairs": pairs}


def extension_lines(extension: Extension | None, n_layers: int, where: str = "dev") -> list[str]:
    """The paired test in Markdown; nothing where there is none.

    where (str): On what the scores are.
    """
    if extension is None:
        return []
    by_mask: dict[str, list[float]] = {}
    for pair in extension.pairs:
        by_mask.setdefault(pair.before, []).append(100 * pair.gain)
    better = sum(pair.gain > 0 for pair in extension.pairs)
    verdict = "It helps" if extension.p < LEVEL else "It does not help significantly"
    return [
        "",
        f"Does it help to unmask more towards the output? Of {len(extension.pairs)} pairs of a mask and one that "
        f"extends it the second is better in {better} on {where}, by {100 * extension.mean:+.2f} in the mean of all. "
        f"{verdict}: p = {extension.p:.4f} (one-sided paired t-test, level {LEVEL}, as Dukić and Šnajder have it; "
        f"pairs have masks in common, which it does not allow for), p = {extension.p_permuted:.4f} with scores dealt "
        f"out to the masks at random.",
        "",
        "| mask | layers | extended by | better | mean gain |",
        "|---|---|---|---|---|",
        *(
            f"| {mask} | {words_for(mask, n_layers)} | {len(gains)} | {sum(gain > 0 for gain in gains)} "
            f"| {sum(gains) / len(gains):+.2f} |"
            for mask, gains in by_mask.items()
        ),
    ]


def as_html(outcome: Outcome, subject: Subject, about: dict[str, Any]) -> str:
    """One file that needs no network: the masks as a picture, the scores with their spread, the learning curves."""
    rows = [row for row in outcome.rows if row.steps == max(one.steps for one in outcome.rows)]
    short = sorted({row.steps for row in outcome.rows} - {rows[0].steps})
    parts = [
        f"<h1>Which layers to unmask: {html.escape(str(about['config']))}</h1>",
        f"<p>Chosen on the development set: <b>{html.escape(outcome.chosen)}</b>, "
        f"{words_for(outcome.chosen, subject.n_layers)}. {outcome.steps:,} steps of training, "
        f"{outcome.steps / outcome.grid_steps:.0%} of those of the full grid.</p>",
        f"<h2>Masks, {rows[0].steps} steps a training</h2>",
        _picture(rows, outcome.chosen, subject),
        *(
            part
            for steps in short
            for part in (
                f"<h2>Masks, {steps} steps a training</h2>",
                _picture([row for row in outcome.rows if row.steps == steps], outcome.chosen, subject),
            )
        ),
        *(
            (
                f"<h2>Masks in trainings that all share, {outcome.shared[0].steps} steps</h2>",
                _picture(outcome.shared, outcome.chosen, subject),
            )
            if outcome.shared
            else ()
        ),
        "<h2>Learning curves</h2>",
        _curves(rows, outcome.chosen),
        "<h2>Numbers</h2>",
        _tables(as_markdown(outcome, subject)),
        "<h2>What was run</h2>",
        f"<pre>{html.escape(json.dumps(about, indent=1))}</pre>",
    ]
    return PAGE.format(title=html.escape(f"Masks of {about['config']}"), body="\n".join(parts))


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; margin: 1rem 0; font-size: 0.9rem; }}
td, th {{ border-bottom: 1px solid #ccc; padding: 0.2rem 0.6rem; text-align: left; }}
svg {{ max-width: 100%; height: auto; }}
pre {{ overflow-x: auto; background: #f6f6f6; padding: 1rem; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def words_for(mask: str, n_layers: int) -> str:
    """The layers of a mask; where layer 0 is has been said."""
    return MaskPlan.parse(mask, n_layers).words.removesuffix(" (layer 0 is next to the input)")


def _percent(row: Row) -> str:
    return f"{100 * row.mean:.2f}" + (f" ± {100 * row.spread:.2f}" if len(row.scores) > 1 else "")


def _picture(rows: list[Row], chosen: str, subject: Subject) -> str:
    """Left the layers of each mask, right its scores: a dot a seed, a bar at the mean."""
    pyplot = _pyplot()
    figure, (left, right) = pyplot.subplots(
        1, 2, sharey=True, figsize=(9, 0.32 * len(rows) + 1.2), width_ratios=[1, 2], layout="constrained"
    )
    for y, row in enumerate(rows):
        for layer, unmasked in enumerate(MaskPlan.parse(row.mask, subject.n_layers).unmasked):
            left.barh(y, 0.9, left=layer - 0.45, height=0.8, color=BIDIRECTIONAL if unmasked else CAUSAL)
        colour = CHOSEN if row.mask == chosen else "black"
        right.plot([100 * score for score in row.scores], [y] * len(row.scores), "o", color=colour, markersize=4)
        right.plot([100 * row.mean] * 2, [y - 0.3, y + 0.3], color=colour, linewidth=2)
    left.set_yticks(range(len(rows)), [row.mask + (" (chosen)" if row.mask == chosen else "") for row in rows])
    left.set_xlabel("layer (blue: bidirectional, grey: causal)")
    left.set_xticks(range(0, subject.n_layers, max(1, subject.n_layers // 8)))
    left.invert_yaxis()
    right.set_xlabel("development score in percent (a dot a seed, a bar at the mean)")
    right.grid(axis="x", linewidth=0.4)
    return _svg(figure)


def _curves(rows: list[Row], chosen: str) -> str:
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
    for row in sorted(rows, key=lambda row: row.mask == chosen):
        for i, curve in enumerate(row.curves):
            marked = row.mask == chosen
            # spaCy evaluates after the first step in any case, where nothing is learned yet: it would flatten the rest.
            curve = curve[1:] if len(curve) > 2 else curve
            axes.plot(
                [step for step, _ in curve],
                [100 * score for _, score in curve],
                color=CHOSEN if marked else "#999999",
                linewidth=1.8 if marked else 0.7,
                label=f"{row.mask} (chosen)" if marked and not i else None,
            )
    axes.set_xlabel("step of training")
    axes.set_ylabel("development score in percent")
    axes.grid(linewidth=0.4)
    axes.legend(loc="lower right")
    return _svg(figure)


def _tables(markdown: str) -> str:
    """The tables of the Markdown report as HTML."""
    parts: list[str] = []
    for block in markdown.split("\n\n"):
        lines = block.strip().splitlines()
        if lines and lines[0].startswith("|"):
            cells = [[html.escape(cell.strip()) for cell in line.strip("|").split("|")] for line in lines]
            head = "".join(f"<th>{cell}</th>" for cell in cells[0])
            body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells[2:])
            parts.append(f"<table><tr>{head}</tr>{body}</table>")
        elif lines:
            parts.append(f"<p>{html.escape(' '.join(lines))}</p>")
    return "\n".join(parts)


def check_plots() -> None:
    """RAISES (SettingError): matplotlib is not installed."""
    try:
        _pyplot()
    except ImportError as error:
        raise SettingError("the report needs matplotlib: python -m pip install 'spacy-lsbillm[search]'") from error


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    _pyplot().close(figure)
    return buffer.getvalue().partition("<!DOCTYPE")[2].partition(">\n")[2]


def write_report(folder: Path, outcome: Outcome, subject: Subject, about: dict[str, Any]) -> dict[str, Path]:
    """Write all of it; each file as a whole.

    RETURNS (dict): Where: "table", "results", "config", "report".
    """
    return _write(
        folder,
        {
            "table": ("table.md", as_markdown(outcome, subject)),
            "results": ("results.json", as_json(outcome, subject, about)),
            "config": ("best.cfg", _config_with(outcome.chosen, subject)),
            "report": ("report.html", as_html(outcome, subject, about)),
        },
    )


def write_ranking(
    folder: Path, prediction: Prediction, subject: Subject, n_seeds: int, about: dict[str, Any]
) -> dict[str, Path]:
    """Write what a predictor says; each file as a whole.

    n_seeds (int): Of the full search that it is to replace.
    RETURNS (dict): Where: "ranking", "results", "config".
    """
    ranking = prediction.ranking
    grid_steps = subject.steps * len(ranking) * n_seeds
    lines = ["| | mask | layers | score | a seed |", "|---|---|---|---|---|"]
    for place, mask in enumerate(ranking, start=1):
        seeds = ", ".join(f"{score:.4f}" for score in prediction.by_seed.get(mask, []))
        words = words_for(mask, subject.n_layers)
        lines.append(f"| {place} | {mask} | {words} | {prediction.scores[mask]:.4f} | {seeds} |")
    lines += [
        "",
        f"Predicted by {prediction.predictor}. Scores are for the ranking alone. Steps of training: "
        f"{prediction.steps:,}, {prediction.steps / grid_steps:.1%} of the full grid's; "
        f"{prediction.seconds:.0f} seconds.",
        "",
        LAYERS_AS,
        "",
    ]
    content = {
        "predictor": prediction.predictor,
        "steps": prediction.steps,
        "grid_steps": grid_steps,
        "seconds": prediction.seconds,
        "ranking": [
            {
                "mask": mask,
                "layers": words_for(mask, subject.n_layers),
                "score": prediction.scores[mask],
                "by_seed": prediction.by_seed.get(mask, []),
            }
            for mask in ranking
        ],
        "base": subject.identity["base"],
        **about,
    }
    return _write(
        folder,
        {
            "ranking": ("ranking.md", "\n".join(lines)),
            "results": ("ranking.json", json.dumps(content, indent=1) + "\n"),
            "config": ("predicted.cfg", _config_with(ranking[0], subject)),
        },
    )


def _config_with(mask: str, subject: Subject) -> str:
    config = subject.config.copy()
    config["components"][subject.component]["model"]["unmask"] = mask
    return config.to_str(interpolate=False) + "\n"


def _write(folder: Path, contents: dict[str, tuple[str, str]]) -> dict[str, Path]:
    paths = {}
    for kind, (name, text) in contents.items():
        paths[kind] = folder / name
        # Several processes may finish at once.
        partial = paths[kind].with_name(f"{name}.{os.getpid()}")
        partial.write_text(text, encoding="utf8")
        partial.replace(paths[kind])
    return paths
