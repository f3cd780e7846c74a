"""Folders from elsewhere, of which every file is about to be read to its end."""

import stat
from pathlib import Path


def endless(folder: Path) -> Path | None:
    """The first entry of a folder that is neither a file nor a folder, by way of links: a device, a pipe or a socket,
    of which reading has no end. None if there is none."""
    for path in sorted(folder.iterdir()):
        try:
            mode = path.stat().st_mode
        except OSError:
            # A link to nowhere, or to itself: whoever reads it says so.
            continue
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            return path
    return None
