"""Results in JSON files that several processes make together."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .whole import write_text


def read_or_make(paths: Mapping[Path, Callable[[], dict[str, Any]]]) -> list[dict[str, Any]]:
    """Read the results that are there and make the others.

    Several processes may call this at the same time to share the work; a process that is killed loses only the result
    that it was making.

    paths (Mapping[Path, Callable]): Each JSON file, and the function that makes its content.
    RETURNS (list[dict[str, Any]]): The contents of the files, in the order of `paths`.
    """
    # First those that no other process is making, then the rest, after waiting for the others.
    for wait in (False, True):
        for path, make in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(Timeout), FileLock(path.with_suffix(".lock"), blocking=wait):
                if not path.exists():
                    write_text(path, json.dumps(make(), indent=1) + "\n")
    return [json.loads(path.read_text(encoding="utf8")) for path in paths]
