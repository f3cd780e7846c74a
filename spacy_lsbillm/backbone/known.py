"""Which bases this process has seen, and where: a stored pipeline that names a base is content with any copy of it, and
no base is read twice for its digest."""

from pathlib import Path
from typing import Any

from ..errors import BaseError
from .arithmetic import arithmetic_of
from .fingerprint import fingerprint, full_digest

_folders: dict[str, list[Path]] = {}
_digests: dict[tuple[Path, str], str] = {}


def remember_folder(found: str, folder: Path) -> None:
    """Remember that a folder holds the base with this fingerprint."""
    folders = _folders.setdefault(found, [])
    if folder in folders:
        folders.remove(folder)
    folders.insert(0, folder)


def known_folder(wanted: str, arithmetic: dict[str, Any] | None) -> Path | None:
    """A folder that held the base with this fingerprint and still does; of several the one seen last.

    arithmetic (dict | None): See `arithmetic_of`; None if it is not known.
    """
    return next((folder for folder in _folders.get(wanted, ()) if holds(folder, wanted, arithmetic)), None)


def holds(folder: Path, wanted: str, arithmetic: dict[str, Any] | None) -> bool:
    """Whether a folder holds the base with this fingerprint and, unless it is None, this arithmetic."""
    try:
        return fingerprint(folder) == wanted and arithmetic in (None, arithmetic_of(folder))
    except (BaseError, OSError, ValueError):
        return False


def known_digest(folder: Path, found: str) -> str:
    """The full digest of a base with this fingerprint, read once."""
    if (folder, found) not in _digests:
        _digests[folder, found] = full_digest(folder)
    return _digests[folder, found]
