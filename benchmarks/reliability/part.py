"""A part of the campaign: a kind of case, each made from its number alone."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

# Takes a case's number and a random generator for this case only. It returns if everything holds.
Check = Callable[[int, random.Random], None]


class Broken(Exception):
    """Something that must hold did not; the message says what was observed."""


@dataclass(frozen=True)
class Part:
    """One part of the campaign.

    name (str): The name on the command line.
    cases (int): The number of cases in a full run.
    what (str): What is tried, for the table.
    holds (str): What must hold, for the table.
    open (Callable): Takes a folder for its files, prepares what all cases need, once per process, and yields the check
        of a case. The check raises `Broken` if something does not hold; any other exception also counts as a failure.
    """

    name: str
    cases: int
    what: str
    holds: str
    open: Callable[[Path], AbstractContextManager[Check]]
