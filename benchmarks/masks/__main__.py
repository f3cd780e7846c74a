"""The commands of the experiment on masks, see `benchmarks.masks`."""

import argparse
import os
from pathlib import Path

from ..record import ROOT, write_result
from ..tasks.arguments import add_run_arguments
from ..tasks.models import BASE
from ..tasks.sets import SETS
from .experiment import Settings, run_set
from .report import report

RESULTS = ROOT / "benchmarks" / "results" / "masks"
DEFAULT_SETS = ["snips_slots", "restaurant8k_slots", "mams_atsa"]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.masks", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        help="train and score what is missing",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_run_arguments(
        run,
        DEFAULT_SETS,
        seeds=Settings.seeds,
        examples=Settings.examples,
        dev=Settings.dev,
        epochs=Settings.epochs,
    )
    run.add_argument("--base", default=BASE, help="folder of the base, from the root of the repository")
    run.add_argument("--groups", type=int, default=Settings.groups, help="number of groups of layers, of equal size")
    run.add_argument("--share", type=float, default=Settings.share, help="length of the short trainings, as a share")
    for command in (run, commands.add_parser("report", help="print the tables and write them, with plots")):
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    args = parser.parse_args()
    if args.command == "report":
        report(args.results)
        return
    data, work, results = (path.resolve() for path in (args.data, args.work, args.results))
    os.chdir(ROOT)
    check(args, data)
    settings = Settings(
        args.base, args.groups, tuple(args.seeds), args.examples, args.dev, args.test, args.epochs, args.share
    )
    for name in args.sets:
        found, page = run_set(name, settings, data, work)
        place = results / settings.name / f"{name}.json"
        write_result(place, found)
        place.with_suffix(".html").write_text(page, encoding="utf8")
        grid = found["grid"]
        cheaper = "; ".join(
            f"{label} {one['chosen']} after {one['share']:.0%} of the steps" for label, one in found["cheaper"].items()
        )
        print(f"{name}: the grid chose {grid['chosen']} (dev {grid['dev']:.4f}, test {grid['test']:.4f}); {cheaper}")


def check(args: argparse.Namespace, data: Path) -> None:
    """Check the arguments before the first data set.

    RAISES (SystemExit): A value is not allowed, or a folder is missing.
    """
    if not Path(args.base).is_dir():
        raise SystemExit(f"there is no base {args.base}: name the folder of one with --base.")
    for name in args.sets:
        if not (data / SETS[name].folder).is_dir():
            raise SystemExit(f"there is no {data / SETS[name].folder}: name the folder of data sets with --data.")
    if len(set(args.seeds)) < len(args.seeds) or min(args.seeds) < 0:
        raise SystemExit(f"--seeds {' '.join(map(str, args.seeds))}: give each once, none below 0.")
    for option, least in (("groups", 1), ("epochs", 1), ("examples", 0), ("dev", 0), ("test", 0)):
        if getattr(args, option) < least:
            raise SystemExit(f"--{option} {getattr(args, option)} is not allowed: it must be at least {least}.")
    if not 0 < args.share < 1:
        raise SystemExit(f"--share {args.share} is not allowed: it must be above 0 and below 1.")


if __name__ == "__main__":
    main()
