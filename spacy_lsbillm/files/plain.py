"""Checking folders from elsewhere before all their files are read."""

import stat
from pathlib import Path


def endless(folder: Path) -> Path | None:
    """The first entry of a folder that is neither a file nor a folder, following links; None if there is none.

    Such an entry is a device, a pipe or a socket, which could be read forever.
    """
    for path in sorted(folder.iterdir()):
        try:
            mode = path.stat().st_mode
        except OSError:
            # A link to nowhere, or to itself: reading it raises an error.
            continue
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            return path
    return None
