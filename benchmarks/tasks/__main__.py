"""The commands of the table of tasks, see `benchmarks.tasks`."""

import argparse
import os
from itertools import product
from pathlib import Path

from ..record import ROOT
from .arguments import add_base_argument, add_device_argument, add_run_arguments
from .cell import Run
from .encoder import MINILM, ensure_minilm
from .models import BASE, BASELINES, MODELS, Budget, on_base
from .report import BEFORE, OURS, report
from .sets import SETS
from .tune import SEED, TUNED_ON, show, tune

RESULTS = ROOT / "benchmarks" / "results" / "tasks"
TUNING = ROOT / "benchmarks" / "results" / "tuning"


def main() -> None:
    shown = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tasks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and score the cells that have no result yet", formatter_class=shown)
    add_run_arguments(run, list(SETS))
    tuning = commands.add_parser("tune", help="try the settings that all models share", formatter_class=shown)
    add_run_arguments(tuning, TUNED_ON, seeds=(SEED,))
    for command in (run, tuning):
        command.add_argument(
            "--models",
            nargs="+",
            choices=[*MODELS, *BASELINES],
            metavar="MODEL",
            help="columns; by default those over the embedded base and the CNN, or for another base the two columns "
            "that differ in the mask",
        )
        add_base_argument(command)
        add_device_argument(command)
    for command, folder in (
        (run, RESULTS),
        (commands.add_parser("report", help="print the table and write it, with a plot"), RESULTS),
        (tuning, TUNING),
        (commands.add_parser("show-tuning", help="print the settings that were tried, and their scores"), TUNING),
    ):
        command.add_argument("--results", type=Path, default=folder, help="folder of result files, or one .jsonl file")
    args = parser.parse_args()
    if args.command == "report":
        report(args.results)
        return
    if args.command == "show-tuning":
        show(args.results)
        return
    data, work, results = (path.resolve() for path in (args.data, args.work, args.results))
    os.chdir(ROOT)
    if not Path(args.base).is_dir():
        raise SystemExit(f"there is no {args.base}: name the folder of a base with --base.")
    models = on_base(args.base, {**MODELS, **BASELINES})
    named = args.models or (list(MODELS) if args.base == BASE else [BEFORE, OURS])
    if any(models[name].base == MINILM for name in named):
        ensure_minilm(Path(MINILM))
    missing = sorted({base for name in named if (base := models[name].base) and not Path(base).is_dir()})
    if missing:
        raise SystemExit(f"there is no {missing[0]}: leave out the models that need it, with --models.")
    limits = {"train": args.examples, "dev": args.dev, "test": args.test}
    table = Run(data, work, results, limits, Budget(epochs=args.epochs), args.command == "run", models, args.device)
    cells = [
        (name, model, seed)
        for seed, name, model in product(args.seeds, args.sets, named)
        if SETS[name].kind in models[model].kinds
    ]
    if args.command == "tune":
        tune(table, cells)
    else:
        table.cells(cells)


if __name__ == "__main__":
    main()
