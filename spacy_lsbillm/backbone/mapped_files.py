"""Watching weight files that are mapped into memory.

Writing into such a file changes the weights of a running model, and truncating it kills the process; replacing or
deleting the file does neither.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import BaseError


class WatchedFiles:
    """The state of files when they were mapped, to detect later changes.

    paths (Iterable[Path]): Existing files.
    """

    def __init__(self, paths: Iterable[Path] = ()):
        self._then = {path: path.stat() for path in paths}

    def changed(self) -> Path | None:
        """The first file that was written to; None if there is none.

        A file with another inode is another file under the same name.
        """
        for path, then in self._then.items():
            try:
                now = path.stat()
            except OSError:
                continue
            if _file(now) == _file(then) and _content(now) != _content(then):
                return path
        return None

    def check(self) -> None:
        """Check that no file was written to.

        RAISES (BaseError): One was.
        """
        path = self.changed()
        if path is not None:
            raise BaseError(
                f"{path} was written to after it was loaded, which changed the weights of this pipeline, as they are "
                "mapped into memory. Load the pipeline again. To replace a base while it is in use, write the new one "
                f"into another folder and rename it, or replace files by renamed ones."
            )


def _file(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def _content(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns
