"""The table of tasks as Markdown and as a plot."""

from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from ..store import tables
from .models import ALL_MODELS, MODELS
from .sets import SETS

Scores = dict[tuple[str, str], list[float]]
# Scores on dev before the first step and after each round, seed by seed.
Curves = dict[tuple[str, str], dict[int, list[float]]]
# Scores of spans in addition to F1, by spaCy's names.
SPAN_SCORES = {"ents_p": "precision", "ents_r": "recall"}
# The model that all others are compared with, and the same model before unmasking.
OURS, BEFORE = "bidirectional", "causal"


def report(results: Path, split: str = "test") -> None:
    """Print and write one table per size of the training sets, with a plot.

    A table has a row per data set and a column per model: the mean and the standard deviation of the score over seeds.

    split (str): The split of the scores.
    """
    for name, store in tables(results, "run").items():
        scores: Scores = defaultdict(list)
        curves: Curves = defaultdict(dict)
        parts: dict[str, Scores] = {short: defaultdict(list) for short in SPAN_SCORES}
        for _, found in store.results():
            key = found["set"], found["model"]
            scores[key].append(100 * found[split])
            curves[key][found["seed"]] = [100 * score for _, score in found["dev_by_step"]]
            for short, score in found.get(f"{split}_scores", {}).items():
                if short in parts:
                    parts[short][key].append(100 * score)
        text = table(scores)
        models = {model for _, model in scores}
        for short, scored in parts.items():
            if scored:
                text += "\n" + table(scored, SPAN_SCORES[short])
        if OURS in models:
            text += "\n" + differences(scores)
        if {OURS, BEFORE} <= models:
            text += "\n" + by_round(curves)
        store.beside("table.md").write_text(text, encoding="utf8")
        print(f"{name}\n\n{text}")
        plot(scores, store.beside("plot.svg"), split)


def table(scores: Scores, what: str = "data set") -> str:
    """The table as Markdown.

    what (str): The header above the names of the data sets.
    """
    sets = [name for name in SETS if any(key[0] == name for key in scores)]
    models = [name for name in ALL_MODELS if any(key[1] == name for key in scores)]
    lines = [f"| {what} | " + " | ".join(models) + " |", "|---|" + "---|" * len(models)]
    lines += [
        f"| {name} | " + " | ".join(cell(scores.get((name, model), [])) for model in models) + " |" for name in sets
    ]
    return "\n".join(lines) + "\n"


def differences(scores: Scores) -> str:
    """Markdown: bidirectional minus each other model, by kind of task.

    Each value is a mean over the sets that both models were trained on.
    """
    lines = [f"| {OURS} minus | sequence labelling | better in | the others | better in |", "|---|---|---|---|---|"]
    for other in MODELS:
        if other == OURS:
            continue
        gains: dict[bool, list[float]] = {True: [], False: []}
        for name, data_set in SETS.items():
            ours, theirs = scores.get((name, OURS)), scores.get((name, other))
            if ours and theirs:
                gains[data_set.kind == "sequence"].append(mean(ours) - mean(theirs))
        if not any(gains.values()):
            continue
        cells = []
        for found in gains.values():
            better = sum(gain > 0 for gain in found)
            cells += [f"{mean(found):+.1f}", f"{better} of {len(found)}"] if found else ["", ""]
        lines.append(f"| {other} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def by_round(curves: Curves) -> str:
    """Markdown: bidirectional minus causal on dev after each epoch.

    Each value is a mean over the sets and seeds that both models were trained on.
    """
    gains: dict[bool, list[list[float]]] = {True: [], False: []}
    for name, data_set in SETS.items():
        ours, theirs = curves.get((name, OURS), {}), curves.get((name, BEFORE), {})
        pairs = [zip(ours[seed], theirs[seed], strict=True) for seed in ours if seed in theirs]
        gains[data_set.kind == "sequence"] += [[a - b for a, b in pair] for pair in pairs]
    rounds = range(1, min((len(gain) for found in gains.values() for gain in found), default=1))
    lines = [f"| {OURS} minus {BEFORE} on dev after round | " + " | ".join(map(str, rounds)) + " |"]
    lines.append("|---|" + "---|" * len(rounds))
    for words, found in (("sequence labelling", gains[True]), ("the others", gains[False])):
        if found:
            lines.append(f"| {words} | " + " | ".join(f"{mean(gain[i] for gain in found):+.1f}" for i in rounds) + " |")
    return "\n".join(lines) + "\n"


def cell(scores: list[float]) -> str:
    """The mean, the standard deviation and, unless it is three, the number of seeds."""
    if not scores:
        return ""
    spread = f" ± {stdev(scores):.1f}" if len(scores) > 1 else ""
    return f"{mean(scores):.1f}{spread}" + ("" if len(scores) == 3 else f" ({len(scores)})")


def plot(scores: Scores, path: Path, split: str) -> None:
    """Write a plot with a row per data set, and in it a row per model.

    Each seed is a dot. A bar marks the mean, and a line on either side of it is as long as the standard deviation.
    """
    from matplotlib import pyplot

    sets = [name for name in SETS if any(key[0] == name for key in scores)]
    models = [name for name in ALL_MODELS if any(key[1] == name for key in scores)]
    figure, axes = pyplot.subplots(figsize=(8, 0.45 * len(sets) + 1.5), layout="constrained")
    # Okabe and Ito's colours, which people with any colour vision can tell apart.
    colours = ["#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7"]
    for m, (model, colour) in enumerate(zip(models, colours, strict=False)):
        rows = [(i + 0.15 * (m - (len(models) - 1) / 2), scores[name, model]) for i, name in enumerate(sets)]
        points = [(score, y) for y, found in rows for score in found]
        axes.scatter(*zip(*points, strict=True), s=10, color=colour, label=model, marker="os^Dv"[m])
        for y, found in rows:
            if not found:
                continue
            spread = stdev(found) if len(found) > 1 else 0.0
            axes.errorbar(mean(found), y, xerr=spread, color=colour, linewidth=1, marker="|", markersize=9)
    axes.set_yticks(range(len(sets)), sets)
    axes.invert_yaxis()
    axes.set_xlabel(f"{split} score (F1 or accuracy, in percent), one dot per seed")
    axes.grid(axis="x", linewidth=0.4)
    figure.legend(loc="outside lower center", ncols=3)
    figure.savefig(path)
    pyplot.close(figure)
