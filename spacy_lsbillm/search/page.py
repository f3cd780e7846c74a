"""The result of a search as an HTML page in one file, which needs no network."""

import html
import json
from typing import Any

from ..pages import as_page, markdown_as_html, pyplot, svg
from .colours import BIDIRECTIONAL, CAUSAL, CHOSEN
from .cost_picture import cost_picture
from .experiment import Experiment
from .outcome import Outcome, Row
from .tables import numbers_as_markdown, recommended_lines, words_for
from .ways import display_name, find_same_way, layers_of, plan_for


def as_html(outcome: Outcome, experiment: Experiment, about: dict[str, Any]) -> str:
    """Write the result as an HTML page in one file.

    It shows score against cost, the layers and scores of each way, the learning curves, and the tables.

    about (dict): See `run_details`.
    """
    rows = [row for row in outcome.rows if row.steps == max(one.steps for one in outcome.rows)]
    short = sorted({row.steps for row in outcome.rows} - {rows[0].steps})
    parts = [
        f"<h1>Which way to see right: {html.escape(str(about['config']))}</h1>",
        f"<p>Chosen on the development set: <b>{html.escape(display_name(outcome.chosen))}</b>, "
        f"{words_for(outcome.chosen, experiment.n_layers)}. {outcome.steps:,} steps of training, "
        f"{outcome.steps / outcome.grid_steps:.0%} of those of the full grid.</p>",
        markdown_as_html("\n".join(recommended_lines(outcome))),
        *_cost_parts(outcome, experiment),
        f"<h2>Ways, {rows[0].steps} steps per training</h2>",
        _picture(rows, outcome.chosen, experiment),
        *(
            part
            for steps in short
            for part in (
                f"<h2>Ways, {steps} steps per training</h2>",
                _picture([row for row in outcome.rows if row.steps == steps], outcome.chosen, experiment),
            )
        ),
        *(
            (
                f"<h2>Ways in shared trainings, {outcome.shared[0].steps} steps</h2>",
                _picture(outcome.shared, outcome.chosen, experiment),
            )
            if outcome.shared
            else ()
        ),
        "<h2>Learning curves</h2>",
        _curves(rows, outcome.chosen),
        "<h2>Numbers</h2>",
        markdown_as_html(numbers_as_markdown(outcome, experiment)),
        "<h2>What was run</h2>",
        f"<pre>{html.escape(json.dumps(about, indent=1))}</pre>",
    ]
    return as_page(f"Ways to see right: {about['config']}", parts)


def _cost_parts(outcome: Outcome, experiment: Experiment) -> list[str]:
    """The plot of score against cost; nothing if all ways cost the same."""
    causal = find_same_way("none", [point.way for point in outcome.points], experiment.n_layers)
    picture = cost_picture(outcome, causal)
    if not picture:
        return []
    return [
        "<h2>Score and cost</h2>",
        picture,
        "<p>Blue line: the ways that no other way beats in both. Large dots: ways trained with all seeds.</p>",
    ]


def _picture(rows: list[Row], chosen: str, experiment: Experiment) -> str:
    """Plot the layers of each way on the left, and its scores on the right: a dot per seed, a bar at the mean."""
    figure, (left, right) = pyplot().subplots(
        1, 2, sharey=True, figsize=(9, 0.32 * len(rows) + 1.2), width_ratios=[1, 2], layout="constrained"
    )
    for y, row in enumerate(rows):
        for layer, unmasked in enumerate(plan_for(row.way, experiment.n_layers).unmasked):
            left.barh(y, 0.9, left=layer - 0.45, height=0.8, color=BIDIRECTIONAL if unmasked else CAUSAL)
        colour = CHOSEN if row.way == chosen else "black"
        right.plot([100 * score for score in row.scores], [y] * len(row.scores), "o", color=colour, markersize=4)
        right.plot([100 * row.mean] * 2, [y - 0.3, y + 0.3], color=colour, linewidth=2)
    left.set_yticks(
        range(len(rows)), [display_name(row.way) + (" (chosen)" if row.way == chosen else "") for row in rows]
    )
    left.set_xlabel("layer")
    deepest = max(layers_of(row.way, experiment.n_layers) for row in rows)
    left.set_xticks(range(0, deepest, max(1, deepest // 8)))
    left.set_ylim(len(rows) - 0.4, -0.6)
    right.set_xlabel("development score in percent")
    right.grid(axis="x", linewidth=0.4)
    return (
        svg(figure) + "<p>Blue layers are bidirectional, grey layers causal. One dot per seed, a bar at the mean.</p>"
    )


def _curves(rows: list[Row], chosen: str) -> str:
    figure, axes = pyplot().subplots(figsize=(9, 4), layout="constrained")
    for row in sorted(rows, key=lambda row: row.way == chosen):
        for i, curve in enumerate(row.curves):
            marked = row.way == chosen
            # spaCy always evaluates after the first step, when nothing is learned yet: that point would flatten the
            # rest of the curve.
            curve = curve[1:] if len(curve) > 2 else curve
            axes.plot(
                [step for step, _ in curve],
                [100 * score for _, score in curve],
                color=CHOSEN if marked else "#999999",
                linewidth=1.8 if marked else 0.7,
                label=f"{display_name(row.way)} (chosen)" if marked and not i else None,
            )
    axes.set_xlabel("step of training")
    axes.set_ylabel("development score in percent")
    axes.grid(linewidth=0.4)
    axes.legend(loc="lower right")
    return svg(figure)
