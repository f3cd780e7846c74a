"""Refusing the folder of a base in which something is neither a file nor a folder."""

from pathlib import Path

from ..errors import BaseError
from ..files import endless


def refuse_endless(folder: Path) -> None:
    """Refuse a folder that could not be read to its end.

    RAISES (BaseError): It holds a device, a pipe or a socket.
    """
    path = endless(folder) if folder.is_dir() else None
    if path is not None:
        raise BaseError(f"{path} is not a file but a device, a pipe or a socket. Remove it from the base folder.")
