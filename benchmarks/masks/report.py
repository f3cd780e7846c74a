"""The results of the experiment as Markdown and as plots."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from spacy_lsbillm.backbone import MaskPlan
from spacy_lsbillm.search.tables import LAYERS_AS, words_for

from ..record import read_result

# Okabe and Ito's colours, which people with any colour vision can tell apart; the markers also differ in shape.
DEV, TEST = "#0072B2", "#D55E00"
BIDIRECTIONAL, CAUSAL = "#0072B2", "#DDDDDD"
# Shown in a cell without a value.
NOTHING = "-"
# Predictors with their markers, the cheapest first.
PREDICTORS = {"probe": "o", "one-shot": "s", "first-steps": "^", "first-loss": "D"}


def report(results: Path) -> None:
    """Print and write the tables and plots, together for all results over the same masks.

    Tasks are not compared with each other, as their sizes may differ.
    """
    found = [read_result(path) for path in sorted(results.glob("*/*.json"))]
    if not found:
        raise SystemExit(f"there are no results in {results}: make some with the command run.")
    times = Counter(one["set"] for one in found)
    named = [one | {"set": _label(one)} if times[one["set"]] > 1 else one for one in found]
    for groups in sorted({one["settings"]["groups"] for one in named}):
        sets = [one for one in named if one["settings"]["groups"] == groups]
        folder = results / f"{groups}-groups"
        folder.mkdir(exist_ok=True)
        text = tables(sets)
        (folder / "tables.md").write_text(text, encoding="utf8")
        plot_scores(sets, folder / "scores.svg")
        plot_predictors(sets, folder / "predictors.svg")
        print(f"{groups} groups\n\n{text}")


def _label(one: dict[str, Any]) -> str:
    """The name of a task that was run at several sizes."""
    return f"{one['set']}, {one['split']['sizes']['train']:,} sentences"


def tables(sets: Sequence[dict[str, Any]]) -> str:
    """All tables."""
    parts = [
        "## The best mask of each task",
        best_masks(sets),
        "## Does dev choose what test confirms?",
        dev_to_test(sets),
        "## Cheaper strategies",
        cheaper(sets),
        "## Predictors",
        predictors(sets),
        "## Does it help to unmask more towards the output?",
        extensions(sets) or "These masks contain too few pairs for a test.",
        "## All masks",
        all_scores(sets),
        LAYERS_AS,
    ]
    return "\n\n".join(parts) + "\n"


def best_masks(sets: Sequence[dict[str, Any]]) -> str:
    """The grid's choice beside fully causal and fully bidirectional layers."""
    rows = []
    for one in sets:
        grid = one["grid"]
        none, every = one["masks"][0], one["masks"][-1]
        means = [mean(scores) for scores in one["dev"].values()]
        rows.append(
            [
                one["set"],
                grid["chosen"],
                words_for(grid["chosen"], one["layers"]),
                *(_spread(one[split][grid["chosen"]]) for split in ("dev", "test")),
                _spread(one["test"][none]),
                _p(grid["to"].get(none)),
                _spread(one["test"][every]),
                _p(grid["to"].get(every)),
                f"{100 * (max(means) - min(means)):.1f}",
            ]
        )
    head = ["task", "best on dev", "layers", "dev", "test", "none, test", "p", "all, test", "p"]
    return _table([*head, "best minus worst, dev"], rows)


def dev_to_test(sets: Sequence[dict[str, Any]]) -> str:
    """Whether the choice on the development set holds on the test set."""
    rows = []
    for one in sets:
        grid = one["grid"]
        rows.append(
            [
                one["set"],
                grid["chosen"],
                f"{grid['rank_on_test']} of {len(one['masks'])}",
                grid["best_on_test"],
                f"{100 * grid['regret_on_test']:.2f}",
                _p(grid["to_best_on_test"]),
                _number(grid["dev_to_test"]["spearman"]),
                _number(grid["dev_to_test"]["kendall"]),
            ]
        )
    head = ["task", "best on dev", "its place on test", "best on test", "regret on test", "p", "Spearman", "Kendall"]
    return _table(head, rows)


def cheaper(sets: Sequence[dict[str, Any]]) -> str:
    """The choices of the cheaper strategies beside the grid's."""
    rows = []
    for one in sets:
        grid = one["grid"]
        for name, found in one["cheaper"].items():
            rows.append(
                [
                    one["set"],
                    name,
                    f"{found['share']:.0%}",
                    found["chosen"],
                    grid["chosen"],
                    f"{100 * found['regret_on_dev']:.2f}",
                    f"{100 * grid['standard_error_on_dev']:.2f}",
                    "yes" if found["within_one_standard_error"] else "no",
                    _difference(found["grid_less_this_on_test"]),
                    _p(found["grid_less_this_on_test"]),
                    "yes" if found["significantly_worse"] else "no",
                ]
            )
    head = [
        "task",
        "strategy",
        "of the grid's steps",
        "its choice",
        "the grid's",
        "worse on dev by",
        "standard error of the grid's best",
        "within it",
        "worse on test by (95%)",
        "p",
        "significantly worse",
    ]
    return _table(head, rows)


def predictors(sets: Sequence[dict[str, Any]]) -> str:
    """How well each predictor ranks the masks, measured by the grid's scores on the development set."""
    rows = [
        [
            one["set"],
            found["predictor"],
            f"{found['on_dev']['share']:.1%}",
            f"{found['seconds'] / sum(one['seconds'].values()):.1%}",
            _number(found["on_dev"]["spearman"]),
            _number(found["on_dev"]["kendall"]),
            found["ranking"][0],
            f"{100 * found['on_dev']['regret_first']:.2f}",
            f"{100 * found['on_dev']['regret_best_of_three']:.2f}",
            f"{100 * found['on_test']['regret_first']:.2f}",
        ]
        for one in sets
        for found in one["predictors"]
    ]
    head = [
        "task",
        "predictor",
        "steps of the grid's",
        "seconds of the grid's",
        "Spearman",
        "Kendall",
        "first choice",
        "its regret",
        "regret of the best of three",
        "its regret on test",
    ]
    return _table(head, rows)


def extensions(sets: Sequence[dict[str, Any]]) -> str:
    """The paper's paired test; empty if there are no pairs."""
    rows = []
    for one in sets:
        for split, found in one["extension"].items():
            if found is not None:
                better = sum(pair["gain"] > 0 for pair in found["pairs"])
                rows.append(
                    [
                        one["set"],
                        split,
                        f"{better} of {len(found['pairs'])}",
                        f"{100 * found['mean']:+.2f}",
                        f"{found['p']:.4f}",
                        f"{found['p_permuted']:.4f}",
                    ]
                )
    head = ["task", "on", "pairs that gain", "mean gain", "p, t-test", "p, permutations"]
    return _table(head, rows) if rows else ""


def all_scores(sets: Sequence[dict[str, Any]]) -> str:
    """The scores of every mask, in the order of the masks."""
    parts = []
    for one in sets:
        sizes = one["split"]["sizes"]
        rows = [
            [mask, words_for(mask, one["layers"]), _spread(one["dev"][mask]), _spread(one["test"][mask])]
            for mask in one["masks"]
        ]
        parts.append(
            f"{one['set']}: {sizes['train']:,} sentences to train on, {sizes['dev']:,} dev, {sizes['test']:,} test; "
            f"{one['steps']} steps per training, seeds {', '.join(map(str, one['seeds']))}; {one['metric']} in percent."
            + "\n\n"
            + _table(["mask", "layers", "dev", "test"], rows)
        )
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def _spread(scores: Sequence[float]) -> str:
    return f"{100 * mean(scores):.1f}" + (f" ± {100 * stdev(scores):.1f}" if len(scores) > 1 else "")


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _p(difference: dict[str, float] | None) -> str:
    return NOTHING if difference is None else f"{difference['p']:.3f}"


def _difference(difference: dict[str, float] | None) -> str:
    if difference is None:
        return NOTHING
    return "{mean:+.2f} ({low:+.2f} to {high:+.2f})".format(**{k: 100 * difference[k] for k in ("mean", "low", "high")})


def plot_scores(sets: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot the layers of each mask on the left, and one panel per task: a dot per seed, a line at the mean."""
    from matplotlib import pyplot

    masks, layers = sets[0]["masks"], sets[0]["layers"]
    figure, (picture, *panels) = pyplot.subplots(
        1,
        1 + len(sets),
        sharey=True,
        figsize=(2.4 + 3 * len(sets), 0.3 * len(masks) + 1.6),
        width_ratios=[0.8, *[1] * len(sets)],
        layout="constrained",
    )
    for y, mask in enumerate(masks):
        for layer, unmasked in enumerate(MaskPlan.parse(mask, layers).unmasked):
            picture.barh(y, 0.9, left=layer - 0.45, height=0.8, color=BIDIRECTIONAL if unmasked else CAUSAL)
    picture.set_yticks(range(len(masks)), masks)
    picture.set_xticks(range(0, layers, max(1, layers // 8)))
    picture.set_xlabel("layer, 0 next to the input\n(blue: bidirectional, grey: causal)")
    picture.set_ylabel("mask")
    picture.invert_yaxis()
    for panel, one in zip(panels, sets, strict=True):
        for split, colour, marker, offset in (("dev", DEV, "o", -0.15), ("test", TEST, "s", 0.15)):
            for y, mask in enumerate(masks):
                scores = [100 * score for score in one[split][mask]]
                label = split if not y else None
                panel.plot(scores, [y + offset] * len(scores), marker, color=colour, markersize=3, label=label)
                panel.plot([mean(scores)] * 2, [y + offset - 0.14, y + offset + 0.14], color=colour, linewidth=1.8)
        panel.set_title(f"{one['set']}\nbest on dev: {one['grid']['chosen']}", fontsize=10)
        panel.set_xlabel(f"{one['metric']} in percent\n(one dot per seed, a line at the mean)")
        panel.grid(axis="x", linewidth=0.4)
    panels[0].legend(loc="best", fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def plot_predictors(sets: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot the rank that a predictor gives each mask against the mask's score.

    There is one row per predictor and one column per task.
    """
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        len(PREDICTORS),
        len(sets),
        squeeze=False,
        sharex=True,
        sharey="col",
        figsize=(1 + 3 * len(sets), 2.1 * len(PREDICTORS)),
        layout="constrained",
    )
    for column, one in enumerate(sets):
        found = {entry["predictor"]: entry for entry in one["predictors"]}
        for row, (name, marker) in enumerate(PREDICTORS.items()):
            panel, entry = panels[row][column], found[name]
            scores = [100 * mean(one["dev"][mask]) for mask in entry["ranking"]]
            panel.plot(range(1, len(scores) + 1), scores, marker, color=DEV, markersize=4)
            panel.axhline(max(scores), color=TEST, linewidth=0.9, linestyle="--")
            panel.set_title(f"{one['set']}, {name}: Spearman {_number(entry['on_dev']['spearman'])}", fontsize=9)
            panel.set_xticks(range(1, len(scores) + 1, 5))
            panel.grid(linewidth=0.4)
            if not column:
                panel.set_ylabel("dev score in percent")
        panels[-1][column].set_xlabel("place that the predictor gives the mask\n(dashed: the best mask's score)")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
