"""The settings that are tuned once per base, for all models over it and all data sets.

These are the learning rate, the adapter's rate relative to it, and the pooling of classifiers. They are chosen on the
development sets of one sequence labelling task and one classification task, with one seed. All models over a language
model get the same settings, those with the best mean over models and sets; the table also shows what each model would
have preferred. For a base other than the embedded one, the two rates are tried, and then one setting at a time around
the best of them.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from thinc.api import Config

from spacy_lsbillm.architectures import DEFAULT_LORA
from spacy_lsbillm.pipeline.config_blocks import find_transformer

from ..store import tables
from .cell import Run
from .models import BASE, MODULES, OURSELVES, STOCK, Budget, Cell, Compared, Tuned
from .sets import SETS

TUNED_ON = ("wnut17", "banking77")
# Rates at one scale, scales at one rate, and the neighbours of the best of these.
LLM_GRID = [
    *(Tuned(rate, 0.5) for rate in (0.002, 0.004, 0.008, 0.016)),
    *(Tuned(0.004, scale) for scale in (0.25, 1.0)),
    *(Tuned(rate, 0.25) for rate in (0.008, 0.016)),
]
WHOLE_GRID = [Tuned(rate) for rate in (0.0001, 0.0002, 0.0005, 0.001)]
CNN_GRID = [Tuned(rate) for rate in (0.0005, 0.001, 0.002, 0.004)]
POOLINGS = [Tuned(0.004, 0.5, pooling) for pooling in ("last", "max", "attention")]
# For a base other than the embedded one: rates, with the chosen one last; then one setting at a time around it.
RATES = [Tuned(0.002, 0.25), Tuned(0.008, 0.125), Tuned(0.008, 0.25), Tuned(0.004, 0.5), Tuned(0.004, 0.25)]
RANKS = (8, 32)
PARTS = ("attention",)
WARMUPS = (0.3,)
LAYERS = (20,)
ROUNDS = (6,)
# One seed, because this is a choice among settings, not a result.
SEED = 0
# The default of each setting.
USUAL = {
    "pooling": Tuned.pooling,
    "warm-up": Tuned.warmup,
    "rank": DEFAULT_LORA["r"],
    "modules": Compared.modules,
    "layers": "all",
}
# The settings of a row, as names and values.
Setting = tuple[tuple[str, Any], ...]
# The scores of each data set and model with these settings, by seed.
Row = dict[tuple[str, str], dict[int, float]]


def tune(run: Run, cells: Sequence[tuple[str, str, int]]) -> None:
    """Train what has no result yet: each model's grid on each set."""
    tried: dict[Budget, list[Cell]] = defaultdict(list)
    for name, model, seed in cells:
        for label, one, budget in variants(run, name, model):
            tried[budget].append(Cell(f"{name}/{model}/{label}-{seed}", name, model, seed, one))
    for budget, some in tried.items():
        replace(run, budget=budget).run(some)


def variants(run: Run, name: str, model_name: str) -> list[tuple[str, Compared, Budget]]:
    """The variants of a model that are tried on a data set: their labels, models and budgets."""
    model, sequence = run.models[model_name], SETS[name].kind == "sequence"
    if model.base is None:
        tried = [replace(model, tuned=tuned) for tuned in CNN_GRID]
    elif model.library == STOCK:
        tried = [replace(model, tuned=tuned) for tuned in WHOLE_GRID]
    elif model.base == BASE:
        tried = [replace(model, tuned=tuned) for tuned in LLM_GRID + ([] if sequence else POOLINGS)]
    else:
        return _around(run, model)
    return [(_label(one), one, run.budget) for one in tried]


def _around(run: Run, model: Compared) -> list[tuple[str, Compared, Budget]]:
    """What is tried over another base: the rates, then one setting at a time around the chosen ones."""
    # Start tokens are not varied: they are as in the tables.
    tried = [replace(model, tuned=replace(rates, add_bos_token=model.tuned.add_bos_token)) for rates in RATES]
    chosen = tried[-1]
    tried += [replace(chosen, rank=rank) for rank in RANKS]
    tried += [replace(chosen, modules=part) for part in PARTS]
    tried += [replace(chosen, tuned=replace(chosen.tuned, warmup=share)) for share in WARMUPS]
    tried += [replace(chosen, depth=depth) for depth in LAYERS]
    longer = [(f"{_label(chosen)}-rounds-{rounds}", replace(run.budget, epochs=rounds)) for rounds in ROUNDS]
    return [(_label(one), one, run.budget) for one in tried] + [(label, chosen, budget) for label, budget in longer]


def show(results: Path) -> None:
    """Print and write one table per run as Markdown.

    A table has a row per setting and a column per model and data set: the development scores, and the mean of each row.
    """
    for name, store in tables(results, "tune").items():
        # Models with the same settings share a table: adapters, fully tuned weights, spaCy's CNN.
        scores: dict[str | None, dict[Setting, Row]] = defaultdict(lambda: defaultdict(dict))
        for _, found in store.results():
            row = scores[_library(found)][_setting(found)]
            row.setdefault((found["set"], found["model"]), {})[found["seed"]] = 100 * found["dev"]
        text = "\n".join(_table(scores[library]) for library in (OURSELVES, None, STOCK) if library in scores)
        store.beside("table.md").write_text(text, encoding="utf8")
        print(f"{name}\n\n{text}")


def _label(model: Compared) -> str:
    tuned = model.tuned
    label = f"{tuned.rate}-{tuned.scale}-{tuned.pooling}"
    for what, value, usual in (
        ("warmup", tuned.warmup, Tuned.warmup),
        ("rank", model.rank, Compared.rank),
        ("modules", model.modules, Compared.modules),
        ("depth", model.depth, Compared.depth),
    ):
        label += f"-{what}-{value}" if value != usual else ""
    return label


def _library(found: dict[str, Any]) -> str | None:
    return found.get("library", OURSELVES) if found["base"] is not None else None


def _setting(found: dict[str, Any]) -> Setting:
    """The settings of a result, by their names in the table."""
    tuned = Tuned(**found["tuned"])
    setting = {
        "rate": tuned.rate,
        "adapter's scale": tuned.scale,
        "pooling": tuned.pooling,
        "warm-up": tuned.warmup,
        "rounds": found["budget"]["epochs"],
    }
    if _library(found) == OURSELVES:
        _, transformer = find_transformer(Config().from_str(found["config"], interpolate=False))
        lora = transformer["model"]["lora"]
        on = next(name for name, modules in MODULES.items() if modules == lora["target_modules"])
        setting |= {"rank": lora["r"], "modules": on, "layers": transformer["model"]["depth"] or "all"}
    return tuple(setting.items())


def _table(rows: dict[Setting, Row]) -> str:
    columns = sorted({key for row in rows.values() for key in row})
    means: dict[Setting, dict[tuple[str, str], float]] = {setting: {} for setting in rows}
    for key in columns:
        # Only the seeds that all settings share.
        seeds = set.intersection(*(set(row[key]) for row in rows.values() if key in row))
        for setting, row in rows.items():
            if key in row and seeds:
                means[setting][key] = mean(row[key][seed] for seed in seeds)
    best = {key: max((found[key] for found in means.values() if key in found), default=None) for key in columns}
    # A setting that is the same in all rows needs no column.
    shown_settings = [name for i, (name, _) in enumerate(next(iter(rows))) if len({row[i] for row in rows}) > 1]
    heads = [*shown_settings, *(", ".join(key) for key in columns), "mean"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for setting in sorted(rows, key=_order):
        found = means[setting]
        cells = [f"{value}" for name, value in setting if name in shown_settings]
        for key in columns:
            shown = f"{found[key]:.1f}" if key in found else ""
            cells.append(f"**{shown}**" if found.get(key) == best[key] else shown)
        # A mean over fewer columns could not be compared with the others.
        cells.append(f"{mean(found.values()):.2f}" if len(found) == len(columns) else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _order(setting: Setting) -> tuple[Any, ...]:
    """The sort key of rows.

    Rows that differ only in the rates come first, from low to high, then those that differ in other settings.
    """
    values = dict(setting)
    changed = [(name, str(value)) for name, value in setting if USUAL.get(name, value) != value]
    return len(changed), changed, values["rate"], values["adapter's scale"], values["rounds"]
