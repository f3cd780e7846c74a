"""A base model's fingerprint, read from its safetensors files without loading them."""

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import BaseError

# Bytes a sample; three are read of a tensor, however large it is.
SAMPLE_BYTES = 4096
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a Hugging Face folder: those its index names, or the single one.

    RAISES (BaseError): There are none, or one that the index names is missing.
    """
    index = folder / INDEX
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf8"))["weight_map"].values()))
    else:
        names = [SINGLE]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        others = [path.name for path in folder.glob("*.bin")]
        advice = f" It has {', '.join(others)}: save it again as safetensors." if others else ""
        raise BaseError(f"the base folder {folder} lacks the weight file {missing[0]!r}.{advice}")
    return [folder / name for name in names]


def fingerprint(folder: Path) -> str:
    """A digest over the sorted names, shapes and dtypes of all tensors, and fixed sampled blocks of each: the first
    bytes, the middle ones and the last. It does not depend on how the tensors are spread over files.

    It tells bases apart, it does not prove that each byte is the same.

    RETURNS (str): "sha256-blocks:" and 64 hexadecimal digits.
    RAISES (BaseError): A weight file is missing or is not a safetensors file.
    """
    entries: dict[str, bytes] = {}
    for path in weight_files(folder):
        with path.open("rb") as file:
            start, header = _read_header(file, path)
            for name, entry in header.items():
                described = json.dumps([name, entry["dtype"], entry["shape"]]).encode()
                begin, end = entry["data_offsets"]
                entries[name] = described + _samples(file, start + begin, start + end)
    digest = hashlib.sha256()
    for name in sorted(entries):
        digest.update(hashlib.sha256(entries[name]).digest())
    return f"sha256-blocks:{digest.hexdigest()}"


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors in a folder's weight files, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        with path.open("rb") as file:
            shapes |= {name: tuple(entry["shape"]) for name, entry in _read_header(file, path)[1].items()}
    return shapes


def _read_header(file: BinaryIO, path: Path) -> tuple[int, dict[str, Any]]:
    """Where the data starts, and the entries by tensor name (format: eight bytes of length, JSON, data)."""
    size = path.stat().st_size
    length = int.from_bytes(file.read(8), "little")
    try:
        if not 0 < length <= size - 8:
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        ends = [entry["data_offsets"][1] for entry in header.values()]
        if max(ends, default=0) != size - 8 - length:
            raise ValueError("its data do not end where the header says")
    except (ValueError, KeyError, TypeError) as error:
        raise BaseError(f"{path} is not a whole safetensors file: {error}. Fetch or copy it again.") from error
    return 8 + length, header


def _samples(file: BinaryIO, begin: int, end: int) -> bytes:
    last = max(begin, end - SAMPLE_BYTES)
    blocks = []
    for start in (begin, (begin + last) // 2, last):
        file.seek(start)
        blocks.append(file.read(min(SAMPLE_BYTES, end - start)))
    return b"".join(blocks)
