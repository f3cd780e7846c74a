"""The commands of the table, see `benchmarks.tasks`."""

import argparse
import os
from itertools import product
from pathlib import Path

from ..record import ROOT
from .arguments import add_run_arguments
from .cell import Run
from .models import MODELS, Budget
from .report import report
from .sets import SETS

RESULTS = ROOT / "benchmarks" / "results" / "tasks"


def main() -> None:
    shown = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tasks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and score the cells that have no result yet", formatter_class=shown)
    add_run_arguments(run, list(SETS))
    run.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL", help="columns")
    for command in (run, commands.add_parser("report", help="print the table and write it, with a plot")):
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    args = parser.parse_args()
    if args.command == "report":
        report(args.results)
        return
    data, work, results = (path.resolve() for path in (args.data, args.work, args.results))
    os.chdir(ROOT)
    missing = sorted({base for name in args.models if (base := MODELS[name].base) and not Path(base).is_dir()})
    if missing:
        raise SystemExit(f"there is no {missing[0]}: leave out the models that need it, with --models.")
    limits = {"train": args.examples, "dev": args.dev, "test": 0}
    cells = [
        (name, model, seed)
        for seed, name, model in product(args.seeds, args.sets, args.models)
        if SETS[name].kind in MODELS[model].kinds
    ]
    Run(data, work, results, limits, Budget(epochs=args.epochs)).cells(cells)


if __name__ == "__main__":
    main()
