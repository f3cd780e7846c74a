"""The bases that this process has seen, and their folders.

A stored pipeline that names a base accepts any copy of it, and no base is read twice for its identifier.
"""

import json
from pathlib import Path
from typing import Any

from ..errors import BaseError
from .config_arithmetic import arithmetic_of
from .fingerprint import fingerprint, full_digest

# By fingerprint and arithmetic, as JSON; the most recently seen last.
_folders: dict[tuple[str, str], Path] = {}
_digests: dict[tuple[Path, str], str] = {}


def remember_folder(identifier: str, arithmetic: dict[str, Any], folder: Path) -> None:
    """Remember that a folder holds the base with this fingerprint and arithmetic."""
    key = identifier, json.dumps(arithmetic)
    _folders.pop(key, None)
    _folders[key] = folder


def known_folder(wanted: str, arithmetic: dict[str, Any] | None) -> Path | None:
    """The folder that was last seen to hold the base with this fingerprint, if it still does.

    arithmetic (dict | None): See `arithmetic_of`; None if it is not known.
    RETURNS (Path | None): None if no such folder was seen.
    """
    said = None if arithmetic is None else json.dumps(arithmetic)
    for (identifier, its), folder in reversed(_folders.items()):
        if identifier == wanted and said in (None, its):
            return folder if holds(folder, wanted, arithmetic) else None
    return None


def holds(folder: Path, wanted: str, arithmetic: dict[str, Any] | None) -> bool:
    """Whether a folder holds the base with this fingerprint and, unless it is None, this arithmetic."""
    try:
        return fingerprint(folder) == wanted and arithmetic in (None, arithmetic_of(folder))
    except (BaseError, OSError, ValueError):
        return False


def known_digest(folder: Path, identifier: str) -> str:
    """The full digest of a base with this fingerprint. It is computed once per process."""
    if (folder, identifier) not in _digests:
        _digests[folder, identifier] = full_digest(folder)
    return _digests[folder, identifier]
