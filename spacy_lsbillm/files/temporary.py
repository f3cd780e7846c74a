"""Temporary folders that do not accumulate: the next one created removes those that killed processes have left."""

import contextlib
import os
import shutil
import tempfile
import weakref
from pathlib import Path

try:
    import fcntl
except ImportError:
    # Windows: folders of killed processes remain.
    fcntl = None  # type: ignore[assignment]

PREFIX = "spacy-lsbillm-"


class TemporaryFolder:
    """A folder among the system's temporary files that exists for a limited time.

    It is removed at the end of a `with` block, of this object or of the process. It is locked as long as its process
    lives, or one that was forked from it; creating another one removes those that are not locked.

    path (Path): The folder.
    """

    def __init__(self) -> None:
        _remove_left()
        made = None
        while made is None:
            # Before it is locked, another process may take it for one that was left.
            made = _made()
        self.path, descriptor = made
        self._close = weakref.finalize(self, _remove, self.path, descriptor, os.getpid())

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *error: object) -> None:
        self._close()


def _made() -> tuple[Path, int | None] | None:
    path = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    with contextlib.suppress(OSError):
        descriptor = _lock(path)
        if path.is_dir():
            return path, descriptor
        if descriptor is not None:
            os.close(descriptor)
    return None


def _remove(path: Path, descriptor: int | None, process: int) -> None:
    # A forked process has a copy of the object, but does not own the folder.
    if os.getpid() == process:
        shutil.rmtree(path, ignore_errors=True)
    if descriptor is not None:
        os.close(descriptor)


def _remove_left() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/"):
        # Others are locked, belong to another user, or no longer exist.
        with contextlib.suppress(OSError):
            descriptor = _lock(path)
            if descriptor is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(descriptor)


def _lock(path: Path) -> int | None:
    """Lock a folder.

    RETURNS (int | None): A descriptor that holds the lock as long as it is open; None if the operating system or the
        file system does not support such locks.
    RAISES (OSError): Another process holds it, or there is no such folder.
    """
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return descriptor
