"""Which bases this process has seen, and where: a stored pipeline that names a base is content with any copy of it, and
no base is read twice for its digest."""

from pathlib import Path

from ..errors import BaseError
from .fingerprint import fingerprint, full_digest

_folders: dict[str, Path] = {}
_digests: dict[tuple[Path, str], str] = {}


def remember_folder(found: str, folder: Path) -> None:
    """Remember that a folder holds the base with this fingerprint."""
    _folders[found] = folder


def known_folder(wanted: str) -> Path | None:
    """A folder that held the base with this fingerprint and still does."""
    folder = _folders.get(wanted)
    if folder is None:
        return None
    try:
        return folder if fingerprint(folder) == wanted else None
    except (BaseError, OSError):
        return None


def known_digest(folder: Path, found: str) -> str:
    """The full digest of a base with this fingerprint, read once."""
    if (folder, found) not in _digests:
        _digests[folder, found] = full_digest(folder)
    return _digests[folder, found]
