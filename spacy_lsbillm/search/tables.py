"""The result of a search, or of a ranking, as Markdown tables."""

from .experiment import Experiment
from .extension import LEVEL, Extension
from .outcome import Outcome, Row
from .prediction import Prediction
from .recommend import recommendations
from .strategies import Shared
from .ways import display_name, plan_for

COSTS_AS = (
    "Prediction and training: cost relative to the causal model at the depth of the config, by the pieces that go "
    "through layers."
)
LAYERS_AS = "Layer 0 is next to the input. In a bit string the first bit is the group next to the input."


def as_markdown(outcome: Outcome, experiment: Experiment) -> str:
    """The recommendations and the tables."""
    return "\n".join([*recommended_lines(outcome), numbers_as_markdown(outcome, experiment)])


def numbers_as_markdown(outcome: Outcome, experiment: Experiment) -> str:
    """The tables, longest trainings first, then ways with most seeds, then the best."""
    lines = [
        "| way | layers | steps | dev | per seed | prediction | training | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    costs = outcome.spending.costs if outcome.spending else {}
    for row in sorted(outcome.rows, key=lambda row: (-row.steps, -len(row.scores), -row.mean)):
        mark = " (chosen)" if row.way == outcome.chosen and row.steps == experiment.steps else ""
        seeds = ", ".join(f"{100 * score:.2f}" for score in row.scores)
        cost = costs.get(row.way)
        # The cost is that of a training in full.
        columns = (
            (f"{cost.prediction:.2f}", f"{cost.training:.2f}" if row.steps == experiment.steps else "")
            if cost
            else ("", "")
        )
        lines.append(
            f"| {display_name(row.way)}{mark} | {words_for(row.way, experiment.n_layers)} | {row.steps} "
            f"| {_percent(row)} | {seeds} | {columns[0]} | {columns[1]} | {row.seconds:.0f} |"
        )
    if costs:
        lines += ["", COSTS_AS]
    if outcome.shared:
        first = outcome.shared[0]
        groups = len(Shared([row.way for row in outcome.shared], [0], first.steps).masks)
        each = f" for each of {groups} settings" if groups > 1 else ""
        lines += [
            "",
            f"Shared trainings: {len(first.scores)} of {first.steps} steps{each}, {first.seconds:.0f} seconds.",
            "",
            "| way | layers | dev | per seed |",
            "|---|---|---|---|",
        ]
        for row in sorted(outcome.shared, key=lambda row: -row.mean):
            seeds = ", ".join(f"{100 * score:.2f}" for score in row.scores)
            layers = words_for(row.way, experiment.n_layers)
            lines.append(f"| {display_name(row.way)} | {layers} | {_percent(row)} | {seeds} |")
    lines += ["", f"Steps of training: {outcome.steps:,}, {outcome.steps / outcome.grid_steps:.0%} of the full grid's."]
    if outcome.spending is not None:
        lines += ["", spending_line(outcome)]
    if outcome.tested:
        lines += ["", "| test | mean | per seed | chosen minus this (95%) | p |", "|---|---|---|---|---|"]
        for one in outcome.tested:
            seeds = ", ".join(f"{100 * score:.2f}" for score in one.scores)
            mean = sum(one.scores) / len(one.scores)
            difference = outcome.differences.get(one.way)
            columns = ("", "")
            if difference is not None:
                span = f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}"
                columns = (f"{100 * difference.mean:+.2f} ({span})", f"{difference.p:.3f}")
            lines.append(f"| {display_name(one.way)} | {100 * mean:.2f} | {seeds} | {columns[0]} | {columns[1]} |")
        if not outcome.differences and len(outcome.tested) > 1:
            lines += ["", "No paired test: this score has no counts per document."]
    lines += extension_lines(outcome.extension, experiment.n_layers)
    return "\n".join([*lines, "", LAYERS_AS, ""])


def recommended_lines(outcome: Outcome) -> list[str]:
    """The recommendations as a Markdown list; nothing if prices were not asked for."""
    lines = []
    for one in recommendations(outcome):
        if one.point is None:
            lines.append(f"- {one.purpose}: all trained ways cost more.")
            continue
        seeds = f"{one.point.seeds} seed" + ("s" if one.point.seeds > 1 else "")
        lines.append(
            f"- {one.purpose}: **{display_name(one.point.way)}**, {100 * one.point.score:.2f} on dev ({seeds}); "
            f"prediction costs {one.point.cost:.2f} times that of the causal model."
        )
    return [*lines, ""] if lines else []


def spending_line(outcome: Outcome) -> str:
    """What the search cost, as a sentence; "" if prices were not asked for."""
    spending = outcome.spending
    if spending is None:
        return ""
    line = f"The trainings in the storage cost as much as {spending.spent:.2f} trainings of the causal model"
    if spending.budget is None:
        return f"{line}."
    ended = "" if spending.complete else "; it ended the search early, since no further training fits"
    return f"{line}; the budget was {spending.budget:g}{ended}."


def extension_lines(extension: Extension | None, n_layers: int, where: str = "dev") -> list[str]:
    """The paired test as lines of Markdown; nothing if there is none.

    where (str): The corpus of the scores.
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
        f"extends it, the second is better in {better} on {where}; the mean gain of all pairs is "
        f"{100 * extension.mean:+.2f}. {verdict}: p = {extension.p:.4f} (one-sided paired t-test, level {LEVEL}, as in "
        f"Dukić and Šnajder; it ignores that pairs share masks), p = {extension.p_permuted:.4f} with scores assigned "
        f"to the masks at random.",
        "",
        "| mask | layers | extended by | better | mean gain |",
        "|---|---|---|---|---|",
        *(
            f"| {mask} | {words_for(mask, n_layers)} | {len(gains)} | {sum(gain > 0 for gain in gains)} "
            f"| {sum(gains) / len(gains):+.2f} |"
            for mask, gains in by_mask.items()
        ),
    ]


def ranking_as_markdown(prediction: Prediction, n_layers: int, grid_steps: int) -> str:
    """The ranking as a table, best first.

    grid_steps (int): The steps of the full search that the ranking is to replace.
    """
    lines = ["| | mask | layers | score | per seed |", "|---|---|---|---|---|"]
    for place, mask in enumerate(prediction.ranking, start=1):
        seeds = ", ".join(f"{score:.4f}" for score in prediction.by_seed.get(mask, []))
        words = words_for(mask, n_layers)
        lines.append(f"| {place} | {mask} | {words} | {prediction.scores[mask]:.4f} | {seeds} |")
    lines += [
        "",
        f"Predicted by {prediction.predictor}. Scores serve only to rank. Steps of training: "
        f"{prediction.steps:,}, {prediction.steps / grid_steps:.1%} of the full grid's; "
        f"{prediction.seconds:.0f} seconds.",
        "",
        LAYERS_AS,
        "",
    ]
    return "\n".join(lines)


def words_for(way: str, n_layers: int) -> str:
    """The layers of a way in words: "layers 0-3 causal, layers 4-7 bidirectional".

    n_layers (int): The layers of the config's model.
    """
    return plan_for(way, n_layers).runs


def _percent(row: Row) -> str:
    return f"{100 * row.mean:.2f}" + (f" ± {100 * row.spread:.2f}" if len(row.scores) > 1 else "")
