"""Where the results of a table are kept: one JSON Lines file.

One line per data set records what its first cell was made with (versions, machine, commit, base, config …). Every other
line is a cell: its scores, and, by dotted path, whatever it does not share with that record.
"""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock
from thinc.api import Config

from spacy_lsbillm.files import write_text

# What most cells of a data set have in common: it is recorded once.
SHARED = ("kind", "metric", "split", "budget", "tuned", "library", "base", "versions", "machine", "commit", "config")
SUFFIX = ".jsonl"


class Store:
    """Results by the name of their cell, such as "snips_slots/causal/0".

    path (Path): The file.
    work (Path): A folder for locks.
    """

    def __init__(self, path: Path, work: Path) -> None:
        self.path, self.work = path, work

    def _lines(self) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
        """The shared records by data set, and the cells."""
        shared: dict[str, dict[str, Any]] = {}
        cells: list[dict[str, Any]] = []
        if self.path.exists():
            for line in map(json.loads, self.path.read_text(encoding="utf8").splitlines()):
                if "cell" in line:
                    cells.append(line)
                else:
                    shared[line.pop("shared")] = line
        return shared, cells

    def read(self, cell: str) -> dict[str, Any] | None:
        """The result of a cell, or None if there is none yet."""
        return dict(self.results()).get(cell)

    def write(self, cell: str, found: dict[str, Any]) -> None:
        """Store the result of a cell, in place of an older one."""
        with self._locked("the file", blocking=True):
            shared, cells = self._lines()
            common = shared.setdefault(found["set"], _shared(found))
            cells = [one for one in cells if one["cell"] != cell] + [{"cell": cell, **_own(found, common)}]
            lines = [{"shared": name, **blocks} for name, blocks in shared.items()] + cells
            write_text(self.path, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines))

    def lock(self, cell: str) -> FileLock:
        """A lock for the process that works on a cell. It is released when that process ends."""
        return self._locked(cell, blocking=False)

    def _locked(self, what: str, blocking: bool) -> FileLock:
        self.work.mkdir(parents=True, exist_ok=True)
        name = sha256(f"{self.path.resolve()} {what}".encode()).hexdigest()[:16]
        return FileLock(self.work / f"{name}.lock", blocking=blocking)

    def results(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """All results, with the names of their cells."""
        shared, cells = self._lines()
        for line in cells:
            yield line["cell"], _whole(line, shared[line["set"]])

    def where(self, cell: str) -> str:
        """The place of a cell's result, for messages."""
        return f"{self.path}, {cell},"

    def beside(self, name: str) -> Path:
        """The path of a file that is made from the results, such as "table.md"."""
        return self.path.with_name(f"{self.path.stem}.{name}")


def tables(results: Path, command: str) -> dict[str, Store]:
    """The tables at a path, by name: one if it is a file; in a folder, one per size of the training sets.

    command (str): The command that makes them, for the message.
    RAISES (SystemExit): There are none.
    """
    files = [results] if results.suffix == SUFFIX else sorted(results.glob(f"*{SUFFIX}"))
    found = {path.stem: Store(path, path.parent) for path in files if path.is_file()}
    if not found:
        raise SystemExit(f"there are no results in {results}: make some with the command {command}.")
    return found


def _shared(found: dict[str, Any]) -> dict[str, Any]:
    """The part of a result that is recorded once, with the config parsed into nested blocks."""
    shared = {name: found[name] for name in SHARED if name in found}
    if "config" in shared:
        shared["config"] = Config().from_str(shared["config"], interpolate=False)
    return shared


def _own(found: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """The part of a result that is not shared, and its differences from the shared record."""
    own = {name: value for name, value in found.items() if name not in SHARED}
    before, now = _flat(shared), _flat(_shared(found))
    changed = {path: value for path, value in now.items() if path not in before or before[path] != value}
    without = [path for path in before if path not in now]
    return own | ({"changed": changed} if changed else {}) | ({"without": without} if without else {})


def _whole(line: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """The complete result of a line, as it was before it was written."""
    own = {name: value for name, value in line.items() if name not in ("cell", "changed", "without")}
    without = set(line.get("without", ()))
    flat = {path: value for path, value in _flat(shared).items() if path not in without} | line.get("changed", {})
    made_with: dict[str, Any] = {}
    for path, value in flat.items():
        *blocks, name = path.split(".")
        block = made_with
        for part in blocks:
            block = block.setdefault(part, {})
        block[name] = value
    if "config" in made_with:
        made_with["config"] = Config(made_with["config"]).to_str(interpolate=False)
    return own | made_with


def _flat(blocks: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Values by dotted path; an empty block is a value."""
    flat = {}
    for name, value in blocks.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[f"{before}{name}"] = value
    return flat
