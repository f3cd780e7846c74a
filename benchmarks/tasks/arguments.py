"""Arguments that the commands of several tables share."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..record import ROOT
from .models import BASE
from .sets import SETS


def add_run_arguments(
    parser: argparse.ArgumentParser,
    sets: Sequence[str],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    examples: int = 2000,
    dev: int = 1000,
    epochs: int = 4,
) -> None:
    """Add the arguments for data, sets, seeds, sizes and the work folder, with these defaults."""
    parser.add_argument("--data", type=Path, required=True, help="the folder of data sets")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(sets), metavar="SET", help="data sets")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(seeds), help="seeds; each gives one training")
    parser.add_argument("--examples", type=int, default=examples, help="maximum number of training examples, 0: all")
    parser.add_argument("--dev", type=int, default=dev, help="maximum number of development examples, 0: all")
    parser.add_argument("--test", type=int, default=0, help="maximum number of test examples, 0: all")
    parser.add_argument("--epochs", type=int, default=epochs, help="epochs per training")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "benchmarks" / "work", help="folder for prepared data and trainings"
    )


def add_base_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument for the base of the models."""
    parser.add_argument("--base", default=BASE, help="folder of the base: absolute, or from the repository's root")


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument for the device of the base."""
    parser.add_argument("--device", help="device of the base, such as cuda; spaCy and the heads stay on the CPU")
