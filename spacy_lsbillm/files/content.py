"""Digests of the content of files and folders."""

import hashlib
from pathlib import Path

from .seal import digest


def content_of(path: Path) -> str:
    """A digest of a file, or of all files below a folder."""
    if path.is_file():
        return f"content {digest(path)[:16]}"
    inside = sorted(one for one in path.rglob("*") if one.is_file())
    listed = "".join(f"{one.relative_to(path).as_posix()} {digest(one)}\n" for one in inside)
    return f"content {hashlib.sha256(listed.encode()).hexdigest()[:16]}"
