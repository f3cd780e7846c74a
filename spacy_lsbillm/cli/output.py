"""Writing files so that a command that is stopped leaves no half of one."""

from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a file under another name and rename it; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf8")
    partial.replace(path)
