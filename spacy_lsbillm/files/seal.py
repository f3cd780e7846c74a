"""A list of the files in a folder with their digests, which also covers itself."""

import hashlib
from pathlib import Path

from ..errors import StorageError

SEAL = "files.sha256"


def write_seal(folder: Path) -> None:
    """List all files in a folder with their SHA-256, in the form of `sha256sum`, and the digest of that list."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SEAL)
    lines = "".join(f"{digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths)
    (folder / SEAL).write_bytes(_closed(lines.encode()))


def check_seal(folder: Path) -> None:
    """Compare the files with the list. Files that it does not name are of no interest.

    RAISES (StorageError): One is missing or altered, or the list is.
    """
    seal = folder / SEAL
    try:
        content = seal.read_bytes()
    except OSError as error:
        raise StorageError(f"{seal} cannot be read ({error.strerror}): copy the pipeline again.") from error
    listed = content[: content.rfind(b"#")]
    if content != _closed(listed):
        raise StorageError(f"{seal} is altered since the pipeline was saved: copy the pipeline again.")
    for line in listed.decode().splitlines():
        recorded, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file() or digest(path) != recorded:
            state = "altered" if path.is_file() else "missing"
            raise StorageError(f"{path} is {state} since the pipeline was saved: copy the pipeline again.")


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _closed(lines: bytes) -> bytes:
    return lines + b"# the lines above: " + hashlib.sha256(lines).hexdigest().encode() + b"\n"
