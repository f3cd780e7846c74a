"""Writing files and new folders that are complete at any moment: under another name first, then synced and renamed."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from .folder import put_in_place

# The suffix of the other name, which is always the same, so that the next write overwrites what a killed one has left.
PARTIAL = ".partial"


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Write a file, or replace it, at the end of a `with` block. Its folder is created.

    YIELDS (Path): The name to write under. After an error nothing is left there, and the file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    try:
        yield partial
        put_in_place(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file, or replace it. Its folder is created."""
    with replaced_file(path) as partial:
        partial.write_text(text, encoding="utf8")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Write a folder that appears at the end of a `with` block. The folder around it is created.

    path (Path): No folder yet, or an empty one.
    YIELDS (Path): The name to write under, where there is nothing; nor is there after an error.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        put_in_place(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
