"""Which bases this process has seen, and where: a stored pipeline that names a base is content with any copy of it, and
no base is read twice for its digest."""

from pathlib import Path

from .fingerprint import full_digest

_folders: dict[str, Path] = {}
_digests: dict[tuple[Path, str], str] = {}


def remember_folder(fingerprint: str, folder: Path) -> None:
    """Remember that a folder holds the base with this fingerprint."""
    _folders[fingerprint] = folder


def known_folder(fingerprint: str) -> Path | None:
    """A folder that held the base with this fingerprint and is still there."""
    folder = _folders.get(fingerprint)
    return folder if folder is not None and folder.is_dir() else None


def known_digest(folder: Path, fingerprint: str) -> str:
    """The full digest of a base, read once."""
    if (folder, fingerprint) not in _digests:
        _digests[folder, fingerprint] = full_digest(folder)
    return _digests[folder, fingerprint]
