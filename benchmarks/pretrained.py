"""What pre-training is worth: the embedded base beside the same architecture from random weights.

    python -m benchmarks.pretrained run --data DATA
    python -m benchmarks.pretrained report

Both are fine-tuned alike, with every layer unmasked and the settings of `benchmarks.tasks`; the random weights a second
time with an adapter of full rank, as a small one cannot make much of them. Scores are those of the best epoch on the
development set. A run that was stopped goes on with the same command.
"""

import argparse
import os
import shutil
from itertools import product
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from .record import ROOT
from .tasks.arguments import add_run_arguments
from .tasks.cell import Run
from .tasks.models import BASE, PRETRAINED, RANDOM, Budget
from .tasks.report import report

RESULTS = ROOT / "benchmarks" / "results" / "pretrained"


def main() -> None:
    plain, shown = argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretrained", description=__doc__, formatter_class=plain)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and score the cells that have no result yet", formatter_class=shown)
    add_run_arguments(run, ["snips_slots", "restaurant8k_slots", "wnut17"])
    for command in (run, commands.add_parser("report", help="print the table and write it, with a plot")):
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    args = parser.parse_args()
    if args.command == "report":
        report(args.results, split="dev")
        return
    data, work, results = (path.resolve() for path in (args.data, args.work, args.results))
    os.chdir(ROOT)
    make_random_base(Path(BASE), Path(RANDOM))
    limits = {"train": args.examples, "dev": args.dev, "test": 0}
    cells = list(product(args.sets, PRETRAINED, args.seeds))
    Run(data, work, results, limits, Budget(epochs=args.epochs), with_test=False).cells(cells)


def make_random_base(base: Path, folder: Path) -> None:
    """The same configuration and tokenizer with the weights that transformers begins with, of seed 0."""
    if folder.is_dir():
        return
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base)).save_pretrained(partial)
    AutoTokenizer.from_pretrained(base).save_pretrained(partial)
    try:
        partial.rename(folder)
    except OSError:  # Another process was faster; its weights are the same.
        shutil.rmtree(partial)


if __name__ == "__main__":
    main()
