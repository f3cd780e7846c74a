"""Which bases this process has seen, and where: a stored pipeline that names a base is content with any copy of it."""

from pathlib import Path

_folders: dict[str, Path] = {}


def remember_folder(fingerprint: str, folder: Path) -> None:
    """Remember that a folder holds the base with this fingerprint."""
    _folders[fingerprint] = folder


def known_folder(fingerprint: str) -> Path | None:
    """A folder that held the base with this fingerprint and is still there."""
    folder = _folders.get(fingerprint)
    return folder if folder is not None and folder.is_dir() else None
