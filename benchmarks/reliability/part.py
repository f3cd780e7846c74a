"""A part of the campaign: a kind of case, as many as one likes, each made from its number alone."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

# Given a case's number and a generator that only this case draws from. It returns if all held.
Check = Callable[[int, random.Random], None]


class Broken(Exception):
    """What must hold did not; its text says what was seen."""


@dataclass(frozen=True)
class Part:
    """
    name (str): Of the part, as on the command line.
    cases (int): How many there are in a full run.
    what (str): What is tried, for the table.
    holds (str): What must hold, for the table.
    open (Callable): Given a folder for its files, prepares what all cases need, once in a process, and yields the
        check of a case. It raises `Broken` if something did not hold; any other exception counts as a failure, too.
    """

    name: str
    cases: int
    what: str
    holds: str
    open: Callable[[Path], AbstractContextManager[Check]]
