"""A list of the files in a folder with their digests, which also has a digest of itself."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ..errors import StorageError
from .whole import PARTIAL, replaced_file

SEAL = "files.sha256"
# Suffixes of files that libraries find by name, such as those of a tokenizer or an adapter.
READ_BY_NAME = frozenset((".bin", ".jinja", ".json", ".model", ".pt", ".py", ".safetensors", ".txt"))


def write_seal(folder: Path, paths: Iterable[Path] | None = None) -> None:
    """Write the SHA-256 of files in the format of `sha256sum`, and the digest of that list.

    A kill at any moment leaves the old list or the new one.

    paths (Iterable[Path] | None): Files in the folder; None: all of them.
    """
    files = [path for path in folder.rglob("*") if path.is_file()] if paths is None else paths
    listed = sorted(path for path in files if path not in (folder / SEAL, folder / (SEAL + PARTIAL)))
    lines = "".join(f"{digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in listed)
    with replaced_file(folder / SEAL) as partial:
        partial.write_bytes(_closed(lines.encode()))


def check_seal(
    folder: Path, since: str = "since the pipeline was saved", advice: str = "copy the pipeline again"
) -> str:
    """Compare the files with the list.

    A file that it does not name is ignored, unless it is beside others in a subfolder that other libraries read by
    their own file names.

    since (str), advice (str): For the message: when the files were intact, and what to do.
    RETURNS (str): The digest of the list, which identifies the content.
    RAISES (StorageError): A file is missing, altered or added, or the list is altered.
    """
    seal = folder / SEAL
    try:
        # A device or a pipe could be read forever.
        content = seal.read_bytes() if seal.is_file() or not seal.exists() else b""
    except OSError as error:
        raise StorageError(f"{seal} cannot be read ({error.strerror}): {advice}.") from error
    listed = content[: content.rfind(b"#")]
    if content != _closed(listed):
        raise StorageError(f"{seal} is altered {since}: {advice}.")
    entries = [line.partition("  ") for line in listed.decode().splitlines()]
    added = _added(folder, {name for _, _, name in entries})
    if added is not None:
        raise StorageError(f"{added} was added {since}, where other libraries may read it: remove it.")
    for recorded, _, name in entries:
        path = folder / name
        try:
            altered = path.is_file() and digest(path) != recorded
        except OSError as error:
            raise StorageError(f"{path} cannot be read ({error.strerror}): {advice}.") from error
        if altered or not path.is_file():
            raise StorageError(f"{path} is {'altered' if altered else 'missing'} {since}: {advice}.")
    return hashlib.sha256(content).hexdigest()


def _added(folder: Path, listed: set[str]) -> Path | None:
    """A file that such a library might read but that the list does not name; None if there is none."""
    inside = {folder / name.split("/")[0] for name in listed if "/" in name}
    for path in sorted(path for place in inside if place.parent == folder for path in place.rglob("*")):
        if path.suffix in READ_BY_NAME and path.relative_to(folder).as_posix() not in listed and not path.is_dir():
            return path
    return None


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _closed(lines: bytes) -> bytes:
    return lines + b"# the lines above: " + hashlib.sha256(lines).hexdigest().encode() + b"\n"
