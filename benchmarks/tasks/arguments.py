"""Arguments that the commands of several tables have."""

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
    """What is trained on what: data, sets, seeds, sizes and the work folder, with these defaults."""
    parser.add_argument("--data", type=Path, required=True, help="the folder of data sets")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(sets), metavar="SET", help="data sets")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(seeds), help="of each training")
    parser.add_argument("--examples", type=int, default=examples, help="of the training set, 0 for all")
    parser.add_argument("--dev", type=int, default=dev, help="of the development set, 0 for all")
    parser.add_argument("--test", type=int, default=0, help="of the test set, 0 for all")
    parser.add_argument("--epochs", type=int, default=epochs, help="of a training")
    parser.add_argument("--work", type=Path, default=ROOT / "benchmarks" / "work", help="for data and trainings")


def add_base_argument(parser: argparse.ArgumentParser) -> None:
    """Which base the models are over."""
    parser.add_argument("--base", default=BASE, help="a folder, from the root of the repository or absolute")


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Which device the base is on."""
    parser.add_argument("--device", help="of the base, such as cuda; spaCy and the heads stay on the CPU")
