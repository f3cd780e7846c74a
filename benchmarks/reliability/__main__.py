"""The command of the campaign, see `benchmarks.reliability`."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from ..record import ROOT, circumstances
from . import __doc__ as about
from .part import Part
from .report import failures, table, write_table
from .results import Done, Results
from .workers import generator, run_all

# Each part is a module of this package.
PARTS = ["documents", "corruptions", "kills", "concurrency", "settings", "trainings"]
RESULTS = ROOT / "benchmarks" / "results" / "reliability.jsonl"
PAGE = ROOT / "docs" / "reliability.md"
# Seconds between two writes of the results; a kill loses at most the cases of that time.
WRITE_EVERY = 5.0


def main(arguments: Sequence[str] | None = None, parts: dict[str, Part] | None = None) -> int:
    """Run the command.

    arguments (Sequence[str] | None): The command's arguments; None for those of this process.
    parts (dict[str, Part] | None): The parts to run instead of all.
    RETURNS (int): The exit status: 1 if a case broke.
    """
    parts = parts or {name: import_module(f"{__package__}.{name}").PART for name in PARTS}
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts), metavar="PART", help=", ".join(parts))
    parser.add_argument("--share", type=float, default=1.0, help="share of the cases of each part (default 1.0)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all cases (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes (default 1)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of results")
    parser.add_argument("--time-limit", type=float, default=120.0, metavar="SECONDS", help="per case (default 120)")
    parser.add_argument(
        "--work", type=Path, help="folder for temporary files (default: one that is removed at the end)"
    )
    parser.add_argument("--again", action="store_true", help="run the broken cases again and replace their results")
    parser.add_argument("--part", choices=parts, metavar="PART", help="with --case: run one case in this process")
    parser.add_argument("--case", type=int, metavar="NUMBER", help="with --part")
    parser.add_argument("--report", action="store_true", help="run nothing; write the table into docs/reliability.md")
    args = parser.parse_args(arguments)
    if not 0 < args.share <= 1:
        parser.error(f"--share {args.share} is not allowed: it must be above 0 and at most 1.")
    if args.jobs < 1 or args.time_limit <= 0:
        parser.error("--jobs must be at least 1, and --time-limit above 0.")
    if (args.part is None) != (args.case is None):
        parser.error("--part and --case name one case together.")
    results_file = args.results.resolve()
    if args.report:
        write_table(Results(results_file), PAGE)
        return 0
    # thinc and torch are fastest with one thread on models of this size.
    os.environ["OMP_NUM_THREADS"] = "1"
    work = Path(tempfile.mkdtemp(prefix="reliability-")) if args.work is None else args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    try:
        if args.part is not None:
            if not 0 <= args.case < parts[args.part].cases:
                parser.error(f"--case {args.case}: {args.part} has the cases 0 to {parts[args.part].cases - 1}.")
            one_case(parts[args.part], args.case, args.seed, work)
            return 0
        results = open_results(results_file, args.seed)
        campaign({name: parts[name] for name in args.parts}, results, work, args)
    finally:
        if args.work is None:
            shutil.rmtree(work, ignore_errors=True)
    print(table(results))
    broken = failures(results)
    if broken:
        print(broken)
    return int(any(results.broken(name) for name in args.parts))


def one_case(part: Part, number: int, seed: int, work: Path) -> None:
    """Run a case in this process, and raise what breaks it."""
    with part.open(work) as check:
        begun = time.monotonic()
        check(number, generator(seed, part.name, number))
    print(f"{part.name} {number} holds ({time.monotonic() - begun:.1f} s)")


def open_results(path: Path, seed: int) -> Results:
    """Read the results so far.

    RAISES (SystemExit): They were made with another seed.
    """
    results = Results(path)
    if not results.begun:
        found = circumstances()
        results.begun = {"seed": seed, "versions": found["versions"], "machine": found["machine"]}
    elif results.begun["seed"] != seed:
        raise SystemExit(
            f"{path} is of seed {results.begun['seed']}, not {seed}: name another file with --results, or that seed."
        )
    return results


def order_of(part: Part) -> list[int]:
    """The numbers of all cases in the order in which they are run.

    They are shuffled, so that any share of them is a mixture, and a larger share contains a smaller one.
    """
    return sorted(range(part.cases), key=lambda number: generator(0, f"order of {part.name}", number).random())


def campaign(parts: dict[str, Part], results: Results, work: Path, args: argparse.Namespace) -> None:
    """Run the cases that have no result yet."""
    commit = circumstances()["commit"]
    todo: list[tuple[str, int, int]] = []
    for part in parts.values():
        done = results.parts.setdefault(part.name, Done(part.name, part.cases, part.what, part.holds))
        if done.cases != part.cases:
            raise SystemExit(
                f"{results.path} has {part.name} with {done.cases} cases, there are {part.cases} now: name another "
                f"file with --results."
            )
        done.what, done.holds = part.what, part.holds
        order = order_of(part)
        before = done.places()
        if args.again:
            places = {number: place for place, number in enumerate(order)}
            wanted = sorted(places[one.number] for one in results.broken(part.name))
        else:
            wanted = [place for place in range(max(1, round(part.cases * args.share))) if place not in before]
        todo += [(part.name, place, order[place]) for place in wanted]
        if wanted and commit not in done.commits:
            done.commits.append(commit)
    numbers = {(name, place): number for name, place, number in todo}
    fresh: dict[str, set[int]] = {name: set() for name in parts}
    written = time.monotonic()

    def write() -> None:
        for name, places in fresh.items():
            results.parts[name].add(places)
            places.clear()
        results.write()

    try:
        # The progress bar of the campaign; the bars of the code it calls would disturb it.
        with tqdm(total=len(todo), unit=" cases", disable=not sys.stderr.isatty()) as bar:
            for name, place, seconds, failure in run_all(
                parts, todo, work, seed=args.seed, jobs=args.jobs, limit=args.time_limit
            ):
                if failure is None:
                    results.failures.pop((name, numbers[name, place]), None)
                else:
                    results.failures[name, failure.number] = failure
                    tqdm.write(f"{name} {failure.number}: {failure.error.splitlines()[0][:200]}")
                if not args.again:
                    results.parts[name].seconds += seconds
                fresh[name].add(place)
                bar.update()
                if time.monotonic() - written > WRITE_EVERY:
                    write()
                    written = time.monotonic()
    finally:
        write()


if __name__ == "__main__":
    sys.exit(main())
