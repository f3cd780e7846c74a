"""Writing a file so that no half of one is ever there."""

from pathlib import Path

from .folder import put_in_place


def write_text(path: Path, text: str) -> None:
    """Write a file under another name, always the same, so that what a killed process has left is written over; have it
    on the disk and rename it. Its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf8")
    put_in_place(partial, path)
