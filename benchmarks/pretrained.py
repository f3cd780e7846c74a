"""The value of pre-training: the embedded base compared with the same architecture with random weights.

    python -m benchmarks.pretrained run --data DATA
    python -m benchmarks.pretrained report

Every layer is unmasked. The random weights are also tuned with an adapter of full rank, because a small one cannot
change them enough. The base has the settings of `benchmarks.tasks`, with which random weights learn nothing; the
settings for random weights were chosen on SNIPS by `tune`. Scores are those of the best epoch on the development set.
An interrupted run continues with the same command.
"""

import argparse
import os
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from .record import ROOT
from .tasks.arguments import add_run_arguments
from .tasks.cell import Run
from .tasks.models import BASE, PRETRAINED, RANDOM, Budget, Cell, Tuned
from .tasks.report import report

RESULTS = ROOT / "benchmarks" / "results" / "pretrained"
TUNING = RESULTS.with_name("pretrained_tuning")
# The rate of all weights is lowered first, then that of the adapter only, to a point at which random weights learn.
GRID = [Tuned(0.002, 1.0), Tuned(0.002, 0.5), Tuned(0.001, 0.5), Tuned(0.008, 0.125), Tuned(0.008, 0.0625)]


def main() -> None:
    plain, shown = argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretrained", description=__doc__, formatter_class=plain)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and score the cells that have no result yet", formatter_class=shown)
    add_run_arguments(run, ["snips_slots", "restaurant8k_slots", "wnut17"])
    tune = commands.add_parser("tune", help="try settings for random weights", formatter_class=shown)
    add_run_arguments(tune, ["snips_slots"], seeds=[0])
    tune.add_argument("--results", type=Path, default=TUNING, help="folder of result files, or one .jsonl file")
    for command in (run, commands.add_parser("report", help="print the table and write it, with a plot")):
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of result files, or one .jsonl file")
    args = parser.parse_args()
    if args.command == "report":
        report(args.results, split="dev")
        return
    data, work, results = (path.resolve() for path in (args.data, args.work, args.results))
    os.chdir(ROOT)
    make_random_base(Path(BASE), Path(RANDOM))
    limits = {"train": args.examples, "dev": args.dev, "test": args.test}
    todo = Run(data, work, results, limits, Budget(epochs=args.epochs), with_test=False)
    if args.command == "run":
        todo.cells(list(product(args.sets, PRETRAINED, args.seeds)))
        return
    random = [model for model, compared in PRETRAINED.items() if compared.base == RANDOM]
    cells = []
    for tuned, name, model, seed in product(GRID, args.sets, random, args.seeds):
        cell = f"{name}/{model}/{tuned.rate}-{tuned.scale}-{seed}"
        cells.append(Cell(cell, name, model, seed, replace(PRETRAINED[model], tuned=tuned)))
    todo.run(cells)


def make_random_base(base: Path, folder: Path) -> None:
    """Make a base with freshly initialised weights (seed 0), unless it exists.

    Its configuration and tokenizer are those of `base`.

    RAISES (SystemExit): The folder has a base of another shape.
    """
    config = AutoConfig.from_pretrained(base)
    if folder.is_dir():
        if AutoConfig.from_pretrained(folder).to_diff_dict() != config.to_diff_dict():
            raise SystemExit(f"{folder} has another shape than {base}: remove it.")
        return
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(partial)
    AutoTokenizer.from_pretrained(base).save_pretrained(partial)
    try:
        partial.rename(folder)
    except OSError:  # Another process was faster; its weights are the same.
        shutil.rmtree(partial)


if __name__ == "__main__":
    main()
