"""The effect of the losses for rare classes on a class that has few documents.

    python -m benchmarks.rare run        nine trainings, about two core-minutes each; continues where it stopped
    python -m benchmarks.rare report

Intents of SNIPS, with 1,000 training requests: 20 of one class, 163 or 164 of each of the other six; the rare class
differs between seeds. The embedded base with a `textcat` of `PooledTextCat.v1`, 250 steps of 150 words. The test set is
complete, with 100 requests of each class. The model of the last step is scored, so nothing is chosen.
"""

import argparse
import json
import random
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import DocBin
from spacy.training import Corpus
from tqdm import tqdm

from spacy_lsbillm.architectures import DEFAULT_LORA
from spacy_lsbillm.files import TemporaryFolder
from spacy_lsbillm.training.config import training_config
from spacy_lsbillm.training.quiet_run import run_training

from .record import ROOT, circumstances, read_result, write_result

RESULT = ROOT / "benchmarks" / "results" / "rare.json"
SNIPS = ROOT / "assets" / "snips"
LOSSES: dict[str, dict[str, Any]] = {
    "cross-entropy": {},
    "balanced": {"class_weights": "balanced"},
    "focal": {"focal_gamma": 2.0},
}
EXAMPLES, RARE, STEPS, WORDS = 1000, 20, 250, 150
SEEDS = (0, 1, 2)


def read(split: str) -> list[dict[str, str]]:
    """The requests of a split."""
    return [json.loads(line) for line in (SNIPS / f"{split}.jsonl").read_text(encoding="utf8").splitlines()]


def labels() -> list[str]:
    """All classes, sorted."""
    return sorted({row["label"] for row in read("test")})


def sample(seed: int) -> list[dict[str, str]]:
    """The training requests for a seed."""
    by_label: dict[str, list[dict[str, str]]] = defaultdict(list)
    rows = read("train")
    random.Random(seed).shuffle(rows)
    for row in rows:
        by_label[row["label"]].append(row)
    rare, *others = labels()[seed % len(labels()) :] + labels()[: seed % len(labels())]
    each, more = divmod(EXAMPLES - RARE, len(others))
    chosen = by_label[rare][:RARE]
    for i, name in enumerate(others):
        chosen += by_label[name][: each + (i < more)]
    return chosen


def write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write requests in spaCy's binary format."""
    nlp, names, found = spacy.blank("en"), labels(), DocBin()
    for row in rows:
        doc = nlp.make_doc(row["text"])
        doc.cats = {name: float(name == row["label"]) for name in names}
        found.add(doc)
    found.to_disk(path)


def train(loss: str, seed: int) -> dict[str, Any]:
    """Train once, and score on the test set."""
    with TemporaryFolder() as folder:
        write(folder / "train.spacy", sample(seed))
        write(folder / "dev.spacy", read("dev")[:7])
        write(folder / "test.spacy", read("test"))
        config = training_config(
            str(ROOT / "assets" / "base"),
            pipeline=["textcat"],
            pooling="mean",
            train=str(folder / "train.spacy"),
            dev=str(folder / "dev.spacy"),
            lora={**DEFAULT_LORA, "dropout": 0.0},
        )
        config["components"]["textcat"]["model"] |= LOSSES[loss]
        config["training"] |= {"max_steps": STEPS, "eval_frequency": STEPS, "seed": seed}
        config["training"]["batcher"]["size"] = WORDS
        config["training"]["optimizer"]["learn_rate"] |= {"total_steps": STEPS, "warmup_steps": STEPS // 10}
        config["system"]["seed"] = seed
        run_training(config, folder / "out")
        nlp = spacy.load(folder / "out" / "model-last")
        scores = nlp.evaluate(list(Corpus(folder / "test.spacy")(nlp)))
    rare = labels()[seed % len(labels())]
    per_class = {name: round(found["f"], 4) for name, found in scores["cats_f_per_type"].items()}
    return {
        "rare": rare,
        "macro": round(scores["cats_macro_f"], 4),
        "micro": round(scores["cats_micro_f"], 4),
        "rare_f": per_class[rare],
    }


def run(result: Path) -> None:
    """Train and score everything that has no result yet."""
    found = read_result(result) if result.exists() else {"cells": {}}
    cells = [(loss, seed) for seed in SEEDS for loss in LOSSES]
    for loss, seed in tqdm([cell for cell in cells if f"{cell[0]}/{cell[1]}" not in found["cells"]], unit="training"):
        found["cells"][f"{loss}/{seed}"] = train(loss, seed)
        settings = {"examples": EXAMPLES, "rare": RARE, "steps": STEPS, "words": WORDS, "base": "assets/base"}
        write_result(
            result, {"what": __doc__.splitlines()[0], **settings, "losses": LOSSES, **found, **circumstances()}
        )


def report(result: Path) -> str:
    """The table as Markdown: mean and standard deviation over the seeds."""
    cells = read_result(result)["cells"]
    lines = ["| loss | macro F1 | micro F1 | F1 of the rare class |", "|---|---|---|---|"]
    for loss in LOSSES:
        own = [found for name, found in cells.items() if name.partition("/")[0] == loss]
        if own:
            columns = [[100 * found[key] for found in own] for key in ("macro", "micro", "rare_f")]
            spread = [f"{statistics.mean(c):.1f} ± {statistics.stdev(c) if len(c) > 1 else 0:.1f}" for c in columns]
            lines.append(f"| {loss} | {' | '.join(spread)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    if args.command == "run":
        run(args.result)
    print(report(args.result))


if __name__ == "__main__":
    main()
