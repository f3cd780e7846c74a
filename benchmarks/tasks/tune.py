"""The settings that are tuned, once for all models over a base and all data sets.

The learning rate, the adapter's in units of it, and how classifiers pool, on the development sets of one task of
sequence labelling and one of classification, with one seed. All models of a language model get the same settings, those
with the best mean over models and sets; what each of them would have preferred is shown beside it. Over another base
than the embedded one: the two rates, and around the best of them one setting at a time.
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
# The rate at one scale, the scale at one rate, and what lies around the best of those.
LLM_GRID = [
    *(Tuned(rate, 0.5) for rate in (0.002, 0.004, 0.008, 0.016)),
    *(Tuned(0.004, scale) for scale in (0.25, 1.0)),
    *(Tuned(rate, 0.25) for rate in (0.008, 0.016)),
]
WHOLE_GRID = [Tuned(rate) for rate in (0.0001, 0.0002, 0.0005, 0.001)]
CNN_GRID = [Tuned(rate) for rate in (0.0005, 0.001, 0.002, 0.004)]
POOLINGS = [Tuned(0.004, 0.5, pooling) for pooling in ("last", "max", "attention")]
# Of another base than the embedded one: rates, the chosen one last; and around that one setting at a time.
RATES = [Tuned(0.002, 0.25), Tuned(0.008, 0.125), Tuned(0.008, 0.25), Tuned(0.004, 0.5), Tuned(0.004, 0.25)]
RANKS = (8, 32)
PARTS = ("attention",)
WARMUPS = (0.3,)
LAYERS = (20,)
ROUNDS = (6,)
# One seed: a choice among settings, not a result.
SEED = 0
# What a setting is unless it is tried.
USUAL = {
    "pooling": Tuned.pooling,
    "warm-up": Tuned.warmup,
    "rank": DEFAULT_LORA["r"],
    "modules": Compared.modules,
    "layers": "all",
}
# What a row of the table is made with, by what it is called there.
Setting = tuple[tuple[str, Any], ...]
# Scores of each data set and model under one setting, by seed.
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
    """What is tried of a model on a data set: its label, and what it is trained with."""
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
    """What is tried over another base: the rates, and around those that were chosen one setting at a time."""
    # Whether texts have a start token is not among what is tried: it is as in the tables.
    tried = [replace(model, tuned=replace(rates, add_bos_token=model.tuned.add_bos_token)) for rates in RATES]
    chosen = tried[-1]
    tried += [replace(chosen, rank=rank) for rank in RANKS]
    tried += [replace(chosen, modules=part) for part in PARTS]
    tried += [replace(chosen, tuned=replace(chosen.tuned, warmup=share)) for share in WARMUPS]
    tried += [replace(chosen, depth=depth) for depth in LAYERS]
    longer = [(f"{_label(chosen)}-rounds-{rounds}", replace(run.budget, epochs=rounds)) for rounds in ROUNDS]
    return [(_label(one), one, run.budget) for one in tried] + [(label, chosen, budget) for label, budget in longer]


def show(results: Path) -> None:
    """Markdown: a row a setting, a column a model and data set, development scores, and the mean of each row."""
    for name, store in tables(results, "tune").items():
        # What has the same settings is in one table: adapters, weights tuned whole, spaCy's own.
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
    """What a result was made with, as the table names it."""
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
        # Of the seeds that all settings have had.
        seeds = set.intersection(*(set(row[key]) for row in rows.values() if key in row))
        for setting, row in rows.items():
            if key in row and seeds:
                means[setting][key] = mean(row[key][seed] for seed in seeds)
    best = {key: max((found[key] for found in means.values() if key in found), default=None) for key in columns}
    # What all rows have alike says nothing about them.
    told = [name for i, (name, _) in enumerate(next(iter(rows))) if len({setting[i] for setting in rows}) > 1]
    heads = [*told, *(", ".join(key) for key in columns), "mean"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for setting in sorted(rows, key=_order):
        found = means[setting]
        cells = [f"{value}" for name, value in setting if name in told]
        for key in columns:
            shown = f"{found[key]:.1f}" if key in found else ""
            cells.append(f"**{shown}**" if found.get(key) == best[key] else shown)
        # A mean over other columns could not be compared.
        cells.append(f"{mean(found.values()):.2f}" if len(found) == len(columns) else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _order(setting: Setting) -> tuple[Any, ...]:
    """The rates come first, the lower before the higher; then what differs from the usual in something else."""
    values = dict(setting)
    changed = [(name, str(value)) for name, value in setting if USUAL.get(name, value) != value]
    return len(changed), changed, values["rate"], values["adapter's scale"], values["rounds"]
