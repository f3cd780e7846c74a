"""The safetensors files of a Hugging Face folder: locating tensors in them, and writing new ones.

No whole model is held in memory for it. (safetensors' own writer needs all tensors of a file at once, and its
reader does not say where the bytes of a tensor are.)
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import BaseError
from ..files import parse_json
from .adapter_files import adapter_instead

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
LARGEST_SHARD = 4 * 10**9
CHUNK_BYTES = 1 << 22
# The maximum length of a tensor's name in a message.
NAME_SHOWN = 100
# Bytes per number, by safetensors' names of dtypes.
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    path (Path), name (str): The file, and the tensor's name in it.
    begin (int), end (int): The range of its bytes in the file.
    dtype (str): Safetensors' name of the dtype, such as "BF16".
    shape (tuple[int, ...]): Its shape.
    """

    path: Path
    name: str
    begin: int
    end: int
    dtype: str
    shape: tuple[int, ...]

    def chunks(self) -> Iterator[bytes]:
        """Read its bytes in chunks. Chunks end between numbers."""
        with self.path.open("rb") as file:
            file.seek(self.begin)
            for start in range(self.begin, self.end, CHUNK_BYTES):
                yield file.read(min(CHUNK_BYTES, self.end - start))


@dataclass(frozen=True)
class NewTensor:
    """A tensor to be written.

    dtype (str): Safetensors' name of the dtype.
    shape (tuple[int, ...]): Its shape.
    chunks (Callable): Returns its bytes in chunks.
    """

    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[bytes]]

    @property
    def size(self) -> int:
        """The size of the tensor in bytes."""
        return prod(self.shape) * SIZES[self.dtype]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a Hugging Face folder: the single one, or those that its index names.

    If a folder has both, the single one is used, as in transformers.

    RAISES (BaseError): There are none, or one that the index names is missing.
    """
    index = folder / INDEX
    names = _indexed(index) if index.is_file() and not (folder / SINGLE).is_file() else [SINGLE]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        instead = adapter_instead(folder)
        if instead:
            raise BaseError(instead)
        others = [path.name for path in folder.glob("*.bin")]
        advice = f" It has {', '.join(others)}: save it again as safetensors." if others else ""
        raise BaseError(f"the base folder {folder} lacks the weight file {missing[0]!r}.{advice}")
    return [folder / name for name in names]


def _indexed(index: Path) -> list[str]:
    """The files that an index names, sorted.

    RAISES (BaseError): It is not an index, or names files outside of its folder.
    """
    try:
        named = parse_json(index.read_text(encoding="utf8"))["weight_map"].values()
        outside = [name for name in named if not isinstance(name, str) or not name or Path(name).name != name]
        if outside:
            raise ValueError(f"it names {outside[0]!r}, which is not a file beside it")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseError(f"{index} cannot be read: {error}. Fetch or copy it again.") from error
    return sorted(set(named))


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors in a folder's weight files, by name. Their values are not read.

    RAISES (BaseError): A weight file is missing, or is not a complete safetensors file.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        with path.open("rb") as file:
            start, header = _read_header(file, path)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            tensors[name] = StoredTensor(path, name, start + begin, start + end, entry["dtype"], tuple(entry["shape"]))
    return tensors


def _read_header(file: BinaryIO, path: Path) -> tuple[int, dict[str, Any]]:
    """Where the data start, and the entries by tensor name (format: eight bytes of length, JSON, data)."""
    size = path.stat().st_size
    length = int.from_bytes(file.read(8), "little")
    try:
        if not 0 < length <= size - 8:
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        header = parse_json(file.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            _check_entry(name, entry)
        ends = [entry["data_offsets"][1] for entry in header.values()]
        if max(ends, default=0) != size - 8 - length:
            raise ValueError("its data do not end where the header says")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseError(f"{path} is not a complete safetensors file: {error}. Fetch or copy it again.") from error
    return 8 + length, header


def _check_entry(name: str, entry: dict[str, Any]) -> None:
    """Check a header's entry for a tensor.

    RAISES (ValueError, KeyError, TypeError): It is invalid.
    """
    (begin, end), shape, dtype = entry["data_offsets"], entry["shape"], entry["dtype"]
    if not all(type(number) is int and number >= 0 for number in (begin, end, *shape)):
        raise ValueError(f"{name[:NAME_SHOWN]!r} lies at {begin} to {end} and has the shape {shape}")
    # Some dtypes, of at most eight bits, have no known size here.
    if dtype in SIZES and prod(shape) * SIZES[dtype] != end - begin:
        raise ValueError(
            f"{name[:NAME_SHOWN]!r} ({dtype}, {shape}) has {end - begin} bytes, not {prod(shape) * SIZES[dtype]}"
        )


def write_tensors(folder: Path, tensors: Mapping[str, NewTensor], largest: int = LARGEST_SHARD) -> None:
    """Write tensors into a folder, one after the other, in files of limited size, with an index if there are several.

    largest (int): Maximum bytes per file; a single larger tensor gets its own file.
    """
    shards = _sharded(tensors, largest)
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = [SINGLE]
    for file_name, shard in zip(names, shards, strict=True):
        _write_file(folder / file_name, {name: tensors[name] for name in shard})
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(tensor.size for tensor in tensors.values())},
            "weight_map": {name: file for file, shard in zip(names, shards, strict=True) for name in shard},
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf8")


def _sharded(tensors: Mapping[str, NewTensor], largest: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        if shards[-1] and filled + tensor.size > largest:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += tensor.size
    return shards


def _write_file(path: Path, tensors: Mapping[str, NewTensor]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    encoded = json.dumps(header, separators=(",", ":")).encode()
    # The data must start at a multiple of eight bytes.
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors.values():
            file.writelines(tensor.chunks())
        if file.tell() != 8 + len(encoded) + offset:
            raise BaseError(f"{path} was not written completely: its tensors have other sizes than announced.")
