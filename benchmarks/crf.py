"""The value of learned transitions (a CRF) compared with tags that only have to be well-formed.

    python -m benchmarks.crf run --data DATA     36 trainings, 20 core-minutes; continues where it stopped
    python -m benchmarks.crf report

With other numbers of examples or epochs a table has its own file (--result).

Pipelines with a sequence_labeler over the embedded base are trained as in `benchmarks.tasks`, with the settings that
were chosen without transitions. The best epoch is chosen on the development set, the figures are from the test set.
"""

import argparse
import os
import shutil
import statistics
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import DocBin
from spacy.training import Corpus
from thinc.api import NumpyOps, set_current_ops
from tqdm import tqdm

from spacy_lsbillm.training.quiet_run import run_training

from .record import ROOT, circumstances, read_result, write_result
from .tasks.arguments import add_run_arguments
from .tasks.models import MODELS, Budget, make_config
from .tasks.sets import prepare

RESULTS = ROOT / "benchmarks" / "results" / "crf.json"
ROWS = ["snips_slots", "restaurant8k_slots", "crossner_politics", "wnut17", "litbank_events", "bc5cdr"]
TRANSITIONS: dict[str, str | None] = {"constraint": None, "learned": "learned"}
EXAMPLES, DEV, TEST, ROUNDS = 300, 200, 500, 3


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.crf", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("run", help="train and score", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_run_arguments(command, ROWS, examples=EXAMPLES, dev=DEV)
    command.set_defaults(test=TEST, epochs=ROUNDS)
    for each in (command, commands.add_parser("report", help="print the table")):
        each.add_argument("--result", type=Path, default=RESULTS, help="the file of the table")
    args = parser.parse_args()
    args.result = args.result.resolve()
    if args.command == "run":
        run(args)
    print(report(read_result(args.result)["cells"]))


def run(args: argparse.Namespace) -> None:
    """Train and score everything that has no result yet."""
    data, work = args.data.resolve(), args.work.resolve() / "crf"
    os.chdir(ROOT)
    # As in `benchmarks.tasks`.
    set_current_ops(NumpyOps(use_blis=False))
    limits = {"train": args.examples, "dev": args.dev, "test": args.test}
    settings = {"what": __doc__.splitlines()[0], "limits": limits, "rounds": args.epochs, "base": "assets/base"}
    content = read_result(args.result) if args.result.exists() else settings | {"cells": {}}
    if any(content[name] != settings[name] for name in ("limits", "rounds")):
        raise SystemExit(f"{args.result} was made with other settings: give another --result, or remove it.")
    cells = [(name, way, seed) for name in args.sets for seed in args.seeds for way in TRANSITIONS]
    for name, way, seed in tqdm(cells, unit=" trainings"):
        key = f"{name}/{way}/{seed}"
        if key not in content["cells"]:
            paths = prepare(name, data, work / "data", limits)
            content["cells"][key] = cell(work / "run", paths, way, seed, Budget(epochs=args.epochs))
            write_result(args.result, content | settings | circumstances())


def cell(folder: Path, paths: dict[str, Path], way: str, seed: int, budget: Budget) -> dict[str, Any]:
    """Train once, and score."""
    shutil.rmtree(folder, ignore_errors=True)
    used = time.process_time()
    corpora = {split: str(paths[split]) for split in ("train", "dev")}
    model = replace(MODELS["bidirectional"], transitions=TRANSITIONS[way])
    config = make_config(model, "sequence", corpora, len(DocBin().from_disk(paths["train"])), budget, seed)
    training = run_training(config, folder)
    nlp = spacy.load(folder / "model-best")
    scores = nlp.evaluate(list(Corpus(paths["test"])(nlp)))
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "dev": round(training.score, 4),
        **{key: round(scores[f"ents_{key}"], 4) for key in ("p", "r", "f", "ece")},
        "core_seconds": round(time.process_time() - used, 1),
    }


def report(cells: dict[str, dict[str, Any]]) -> str:
    """The table as Markdown: means over the seeds that both ways have, and the range of differences."""
    lines = [
        "| data set | seeds | F1, constraint only | F1, learned | difference | ECE, constraint only | ECE, learned |",
        "|---|---|---|---|---|---|---|",
    ]
    pairs: dict[str, list[list[dict[str, Any]]]] = defaultdict(list)
    for key in cells:
        name, _, seed = key.split("/")
        both = [cells.get(f"{name}/{way}/{seed}") for way in TRANSITIONS]
        if key == f"{name}/learned/{seed}" and None not in both:
            pairs[name].append([found for found in both if found is not None])
    means = []
    for name, found in pairs.items():
        f, ece = ([statistics.mean(pair[i][figure] for pair in found) for i in (0, 1)] for figure in ("f", "ece"))
        more = [100 * (learned["f"] - constraint["f"]) for constraint, learned in found]
        means.append(statistics.mean(more))
        spread = f" ({min(more):+.1f} to {max(more):+.1f})" if len(more) > 1 else ""
        lines.append(
            f"| {name} | {len(found)} | {100 * f[0]:.1f} | {100 * f[1]:.1f} | {means[-1]:+.1f}{spread} | "
            f"{ece[0]:.3f} | {ece[1]:.3f} |"
        )
    lines.append(f"\nMean difference: {statistics.mean(means):+.2f}.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
