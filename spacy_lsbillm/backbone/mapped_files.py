"""Weight files that are mapped into memory. What is written into such a file changes the weights of a model that runs,
and what is cut off its end kills the process; a file that is replaced or deleted does neither."""

import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import BaseError


class WatchedFiles:
    """What files were when they were mapped.

    paths (Iterable[Path]): They exist.
    """

    def __init__(self, paths: Iterable[Path] = ()):
        self._then = {path: path.stat() for path in paths}

    def changed(self) -> Path | None:
        """The first that was written to. (One with another number is another file, with the old one's name.)"""
        for path, then in self._then.items():
            try:
                now = path.stat()
            except OSError:
                continue
            if _file(now) == _file(then) and _content(now) != _content(then):
                return path
        return None

    def check(self) -> None:
        """RAISES (BaseError): One was written to."""
        path = self.changed()
        if path is not None:
            raise BaseError(
                f"{path} was written to after it was loaded, and with it the weights of this pipeline, which are "
                f"mapped into memory: load the pipeline again. To exchange a base while it is in use, write the new "
                f"one into a folder of its own and rename it, or replace files by renamed ones."
            )


def _file(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def _content(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns
