"""The results of a campaign: one file of JSON lines. The first says what it was run with; then a line a part, with how
far it is; and a line for each case that broke."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spacy_lsbillm.files import write_text


@dataclass(frozen=True)
class Failure:
    """A case that broke.

    part (str), number (int): Which.
    error (str): The exception, with its class.
    trace (list[str]): The first lines of its traceback.
    seconds (float): Until then.
    """

    part: str
    number: int
    error: str
    trace: list[str]
    seconds: float


@dataclass
class Done:
    """How far a part is.

    name (str), cases (int), what (str), holds (str): See `Part`.
    ranges (list[list[int]]): Begin and end of what is done, in places in the part's order.
    seconds (float): Of all its cases.
    commits (list[str]): Of this repository, as it was when they were run.
    """

    name: str
    cases: int
    what: str
    holds: str
    ranges: list[list[int]] = field(default_factory=list)
    seconds: float = 0.0
    commits: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Cases that are done."""
        return sum(end - begin for begin, end in self.ranges)

    def places(self) -> set[int]:
        """Of the cases that are done."""
        return {place for begin, end in self.ranges for place in range(begin, end)}

    def add(self, places: Iterable[int]) -> None:
        """Take note of more."""
        self.ranges = _ranges(sorted({*self.places(), *places}))


def _ranges(places: Sequence[int]) -> list[list[int]]:
    ranges: list[list[int]] = []
    for place in places:
        if ranges and ranges[-1][1] == place:
            ranges[-1][1] += 1
        else:
            ranges.append([place, place + 1])
    return ranges


class Results:
    """What is in the file, and writing it.

    path (Path): The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun: dict[str, Any] = {}
        self.parts: dict[str, Done] = {}
        self.failures: dict[tuple[str, int], Failure] = {}
        lines = path.read_text(encoding="utf8").splitlines() if path.is_file() else []
        for line in map(json.loads, lines):
            if "name" in line:
                self.parts[line["name"]] = Done(**line)
            elif "error" in line:
                self.failures[line["part"], line["number"]] = Failure(**line)
            else:
                self.begun = line

    def broken(self, part: str) -> list[Failure]:
        """What broke of a part, by number."""
        return sorted((one for one in self.failures.values() if one.part == part), key=lambda one: one.number)

    def write(self) -> None:
        """Under another name first, so that a kill leaves no half of it."""
        lines: list[Any] = [self.begun, *map(asdict, self.parts.values())]
        lines += [asdict(one) for part in self.parts for one in self.broken(part)]
        write_text(self.path, "".join(json.dumps(one, ensure_ascii=True) + "\n" for one in lines))
