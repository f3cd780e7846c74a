"""The results of a campaign, in one JSON Lines file.

The first line records what it was run with. Each part has a line with its progress, and each broken case has a line.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spacy_lsbillm.files import write_text


@dataclass(frozen=True)
class Failure:
    """A broken case.

    part (str), number (int): The part and the number of the case.
    error (str): The exception, with its class.
    trace (list[str]): The first lines of its traceback.
    seconds (float): The time until it broke.
    """

    part: str
    number: int
    error: str
    trace: list[str]
    seconds: float


@dataclass
class Done:
    """The progress of a part.

    name (str), cases (int), what (str), holds (str): See `Part`.
    ranges (list[list[int]]): The finished cases as begin and end, in places in the part's order.
    seconds (float): The time of all its cases.
    commits (list[str]): The commits of this repository at which they were run.
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
        """The number of finished cases."""
        return sum(end - begin for begin, end in self.ranges)

    def places(self) -> set[int]:
        """The places of the finished cases in the part's order."""
        return {place for begin, end in self.ranges for place in range(begin, end)}

    def add(self, places: Iterable[int]) -> None:
        """Record more finished cases."""
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
    """The content of the file.

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
        """The broken cases of a part, sorted by number."""
        return sorted((one for one in self.failures.values() if one.part == part), key=lambda one: one.number)

    def write(self) -> None:
        """Write the file atomically, so that a kill leaves no partial file."""
        lines: list[Any] = [self.begun, *map(asdict, self.parts.values())]
        lines += [asdict(one) for part in self.parts for one in self.broken(part)]
        write_text(self.path, "".join(json.dumps(one, ensure_ascii=True) + "\n" for one in lines))
