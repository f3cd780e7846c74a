"""Replacing a folder as a whole: written beside it, synced, then exchanged in one step."""

import contextlib
import ctypes
import hashlib
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import StorageError

# <linux/fs.h> and <sys/stdio.h> of macOS.
AT_FDCWD = -100
RENAME_EXCHANGE = 2
RENAME_SWAP = 2
LOCKS = "spacy-lsbillm-"
# How long another process may take to open or remove the file of a lock.
LOCK_SECONDS = 60.0


@contextlib.contextmanager
def replaced_folder(path: Path, known_by: str) -> Iterator[Path]:
    """Write a folder that replaces another one at the end.

    After a kill at any moment there is either the old folder or the new one, complete; the next write removes what a
    killed one has left. After an error the old folder remains.

    path (Path): The folder to replace, or a new one.
    known_by (str): A file that an existing folder must contain, so that no other folder is replaced by mistake.
    YIELDS (Path): An empty folder to write into.
    RAISES (StorageError): There is something else at the path, or another process is writing there.
    """
    path = path.resolve()
    if path.exists() and not (path / known_by).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise StorageError(
            f"{path} exists, but it is not such a folder: it holds no {known_by!r}. Name another folder."
        )
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with sole_writer(path):
        aside = _aside(partial)
        if aside.exists() and not path.exists():
            # Killed between the renames on a file system that cannot exchange folders.
            aside.rename(path)
        for left in (aside, partial):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            _sync(partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if path.exists():
            _exchange(partial, path)
        else:
            partial.rename(path)
        _sync_one(path.parent)
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Keep other processes of this user on this machine out of a folder while they use the same function.

    RAISES (StorageError): Another process is in it.
    """
    path = path.resolve()
    # Another user could not open the files.
    user = os.getuid() if hasattr(os, "getuid") else ""
    name = hashlib.sha256(f"{user} {path}".encode()).hexdigest()[:32]
    folder = Path(tempfile.gettempdir())
    lock = FileLock(folder / f"{LOCKS}{name}.lock", timeout=0)
    # A lock's file is removed with the lock. Without the lock of all locks one process could remove a file that another
    # one has just opened, and a third would lock a new one.
    all_locks = FileLock(folder / f"{LOCKS}{user}.lock", timeout=LOCK_SECONDS)
    with all_locks:
        _remove_left_locks(folder, {Path(lock.lock_file), Path(all_locks.lock_file)})
        try:
            lock.acquire()
        except Timeout:
            raise StorageError(f"another process is writing {path}. Wait for it, or name another folder.") from None
    try:
        yield
    finally:
        with all_locks:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)


def _remove_left_locks(folder: Path, kept: set[Path]) -> None:
    """Remove the lock files of this user's killed processes. The caller must hold the lock of all locks."""
    for path in set(folder.glob(f"{LOCKS}*.lock")) - kept:
        with contextlib.suppress(OSError, Timeout):
            if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
                continue
            with FileLock(path, timeout=0):
                path.unlink()


def put_in_place(partial: Path, path: Path) -> None:
    """Sync a file or folder that was written under another name to the disk, then rename it.

    So whatever happens, what has the final name is complete. A folder can only replace an empty one.
    """
    if partial.is_dir():
        _sync(partial)
    else:
        _sync_one(partial)
    if partial.is_dir() and path.is_dir():
        path.rmdir()
    partial.replace(path)
    _sync_one(path.parent)


def _exchange(one: Path, other: Path) -> None:
    """Exchange two folders; in one step if the operating system and the file system support it."""
    if sys.platform == "linux":
        rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        arguments = (AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    elif sys.platform == "darwin":
        rename = getattr(ctypes.CDLL(None, use_errno=True), "renamex_np", None)
        arguments = (os.fsencode(one), os.fsencode(other), RENAME_SWAP)  # type: ignore[assignment]
    else:
        rename, arguments = None, ()  # type: ignore[assignment]
    if rename is None or rename(*arguments) != 0:
        warnings.warn(
            f"this file system cannot exchange two folders in one step: for a moment {other} does not exist.",
            stacklevel=4,
        )
        aside = _aside(one)
        other.rename(aside)
        one.rename(other)
        aside.rename(one)


def _aside(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.old")


def _sync(folder: Path) -> None:
    """Sync everything in a folder to the disk."""
    for path in folder.rglob("*"):
        _sync_one(path)
    _sync_one(folder)


def _sync_one(path: Path) -> None:
    # Windows cannot open folders.
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
