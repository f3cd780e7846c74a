"""The settings that are tuned, once for all models and all data sets.

The learning rate, the adapter's in units of it, and how classifiers pool, on the development sets of one task of
sequence labelling and one of classification, with one seed. All models of a language model get the same settings, those
with the best mean over models and sets; what each of them would have preferred is shown beside it.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from tqdm import tqdm

from ..record import read_result
from .cell import Run
from .models import MODELS, Tuned
from .sets import SETS

TUNED_ON = ("wnut17", "banking77")
# The rate at one scale, the scale at one rate, and what lies around the best of those.
LLM_GRID = [
    *(Tuned(rate, 0.5) for rate in (0.002, 0.004, 0.008, 0.016)),
    *(Tuned(0.004, scale) for scale in (0.25, 1.0)),
    *(Tuned(rate, 0.25) for rate in (0.008, 0.016)),
]
CNN_GRID = [Tuned(rate) for rate in (0.0005, 0.001, 0.002, 0.004)]
POOLINGS = [Tuned(0.004, 0.5, pooling) for pooling in ("last", "max", "attention")]
# One seed: a choice among settings, not a result.
SEED = 0
# Scores of each data set and model under one setting, by seed.
Row = dict[tuple[str, str], dict[int, float]]


def tune(run: Run, cells: Sequence[tuple[str, str, int]]) -> None:
    """Train what has no result yet: each model's grid on each set, then the poolings at one rate."""
    tried = [(*cell, tuned) for cell in cells for tuned in settings(*cell[:2])]
    for name, model, seed, tuned in tqdm(tried, unit=" cells"):
        run.cell(name, model, seed, run.folder / name / model / f"{_label(tuned)}-{seed}.json", tuned)


def settings(name: str, model: str) -> list[Tuned]:
    """What is tried of a model on a data set."""
    if MODELS[model].base is None:
        return CNN_GRID
    return LLM_GRID + [tuned for tuned in POOLINGS if SETS[name].kind != "sequence"]


def _label(tuned: Tuned) -> str:
    return f"{tuned.rate}-{tuned.scale}-{tuned.pooling}"


def show(results: Path) -> None:
    """Markdown: a row a setting, a column a model and data set, development scores, and the mean of each row."""
    folders = sorted(path for path in results.iterdir() if path.is_dir()) if results.is_dir() else []
    if not folders:
        raise SystemExit(f"there are no results in {results}: make some with the command tune.")
    for folder in folders:
        scores: dict[bool, dict[Tuned, Row]] = {False: defaultdict(dict), True: defaultdict(dict)}
        for path in sorted(folder.glob("*/*/*.json")):
            found = read_result(path)
            rows = scores[MODELS[found["model"]].base is None]
            row = rows[Tuned(**found["tuned"])]
            row.setdefault((found["set"], found["model"]), {})[found["seed"]] = 100 * found["dev"]
        text = "\n".join(_table(rows) for rows in scores.values() if rows)
        (folder / "table.md").write_text(text, encoding="utf8")
        print(f"{folder.name}\n\n{text}")


def _table(rows: dict[Tuned, Row]) -> str:
    columns = sorted({key for row in rows.values() for key in row})
    means: dict[Tuned, dict[tuple[str, str], float]] = {tuned: {} for tuned in rows}
    for key in columns:
        # Of the seeds that all settings have had.
        seeds = set.intersection(*(set(row[key]) for row in rows.values() if key in row))
        for tuned, row in rows.items():
            if key in row and seeds:
                means[tuned][key] = mean(row[key][seed] for seed in seeds)
    best = {key: max((found[key] for found in means.values() if key in found), default=None) for key in columns}
    heads = ["rate", "adapter's scale", "pooling", *(", ".join(key) for key in columns), "mean"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for tuned in sorted(rows, key=lambda t: (t.pooling != Tuned.pooling, t.pooling, t.rate, t.scale)):
        found = means[tuned]
        cells = [f"{tuned.rate}", f"{tuned.scale}", tuned.pooling]
        for key in columns:
            shown = f"{found[key]:.1f}" if key in found else ""
            cells.append(f"**{shown}**" if found.get(key) == best[key] else shown)
        # A mean over other columns could not be compared.
        cells.append(f"{mean(found.values()):.2f}" if len(found) == len(columns) else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
