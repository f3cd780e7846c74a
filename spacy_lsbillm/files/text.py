"""Writing a file atomically."""

from pathlib import Path

from .folder import put_in_place


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is complete at any moment: under a temporary name that is always the same, so that the
    next write overwrites what a killed one has left; then sync it to the disk and rename it. Its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf8")
    put_in_place(partial, path)
