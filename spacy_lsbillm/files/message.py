"""All files of a folder as one message, for processes and stores that take bytes."""

from pathlib import Path

import srsly

from ..errors import StorageError

# msgpack allows at most 4 GiB per item.
CHUNK_BYTES = 1 << 30


def message_of(folder: Path) -> bytes:
    """Make a message of all files below a folder."""
    return srsly.msgpack_dumps(
        {str(path.relative_to(folder)): _in_chunks(path) for path in folder.rglob("*") if path.is_file()}
    )


def files_in(data: bytes) -> dict[str, list[bytes]]:
    """The files in a message, by name, in chunks; none if the folder was empty.

    RAISES (StorageError): It does not come from `message_of`.
    """
    try:
        files = srsly.msgpack_loads(data)
    except Exception as error:
        # msgpack raises various errors of its own.
        raise StorageError(f"the message cannot be read ({error}): transfer it again.") from error
    named = isinstance(files, dict) and all(isinstance(name, str) for name in files)
    if not named or not all(isinstance(x, list) and all(isinstance(y, bytes) for y in x) for x in files.values()):
        raise StorageError("the message does not contain the files of a pipeline: transfer it again.")
    return files


def unpack(files: dict[str, list[bytes]], root: Path) -> None:
    """Write files below a folder.

    RAISES (StorageError): A name leads outside of the folder, or is no valid file name.
    """
    for name, chunks in files.items():
        try:
            path = (root / name).resolve()
            if root not in path.parents:
                raise StorageError(f"the message names a file {name!r} outside of the pipeline: it is not trusted.")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.writelines(chunks)
        except StorageError:
            raise
        except (OSError, ValueError) as error:
            raise StorageError(f"the message names a file {name!r}, which cannot be written: {error}.") from error


def _in_chunks(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        return list(iter(lambda: file.read(CHUNK_BYTES), b""))
