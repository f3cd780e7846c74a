"""The commands of the table, see `benchmarks.tasks`."""

import argparse
import os
from itertools import product
from pathlib import Path

from tqdm import tqdm

from ..record import ROOT
from .cell import run_cell
from .models import MODELS, Budget
from .report import report
from .sets import SETS

RESULTS = ROOT / "benchmarks" / "results" / "tasks"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tasks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and score the cells that have no result yet")
    run.add_argument("--data", type=Path, required=True, help="the folder of data sets")
    run.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET")
    run.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL")
    run.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    run.add_argument("--examples", type=int, default=2000, help="of the training set, 0 for all (default %(default)s)")
    run.add_argument("--dev", type=int, default=1000, help="of the development set, 0 for all (default %(default)s)")
    run.add_argument("--epochs", type=int, default=4)
    run.add_argument("--work", type=Path, default=ROOT / "benchmarks" / "work", help="for data and runs in progress")
    for command in (run, commands.add_parser("report", help="print the table and write it, with a plot")):
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    args = parser.parse_args()
    if args.command == "report":
        report(args.results)
        return
    os.chdir(ROOT)
    limits = {"train": args.examples, "dev": args.dev, "test": 0}
    cells = [
        (name, model, seed)
        for seed, name, model in product(args.seeds, args.sets, args.models)
        if SETS[name].kind in MODELS[model].kinds
    ]
    size = str(args.examples or "all")
    for name, model, seed in tqdm(cells, unit=" cells"):
        result = args.results / size / name / model / f"{seed}.json"
        claim = result.with_suffix(".claim")
        if result.exists() or not claimed(claim):
            continue
        try:
            found = run_cell(
                name,
                model,
                seed,
                data=args.data,
                work=args.work,
                limits=limits,
                budget=Budget(epochs=args.epochs),
                result=result,
            )
        finally:
            claim.unlink()
        tqdm.write(f"{name} {model} {seed}: dev {found['dev']:.4f}, test {found['test']:.4f}")


def claimed(path: Path) -> bool:
    """Take a cell, unless a living process has it: several may work on one table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not Path(f"/proc/{path.read_text()}").exists():
        path.unlink()
    try:
        with path.open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        return False
    return True


if __name__ == "__main__":
    main()
