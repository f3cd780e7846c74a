"""Reading a GGUF file in place.

(The `gguf` package's own reader turns each word of the vocabulary into several arrays: a minute and 1.4 GB for 262,144
words, before the first weight is read.)

Format: github.com/ggml-org/ggml, docs/gguf.md. Header, metadata as typed keys and values, one entry per tensor, data.
"""

import mmap
import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BaseError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
MOST_DIMENSIONS = 4
# The number of values that are unpacked at a time.
BLOCK = 1 << 20
# The `struct` format of each of GGUF's value types, by number; 8 is a string, 9 an array.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def gguf_package() -> Any:
    """The module `gguf`, which can unpack quantised numbers.

    RAISES (BaseError): It is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise BaseError(
            f"reading GGUF files needs the package gguf ({error}): pip install 'spacy-lsbillm[gguf]'."
        ) from error
    return gguf


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor in a file.

    path (Path): The file.
    begin (int): Where its bytes start.
    type (GGMLQuantizationType): How its numbers are packed.
    shape (tuple[int, ...]): In numbers, in PyTorch's order: rows first.
    stored_shape (tuple[int, ...]): In bytes; the last entry is the size of a packed row.
    """

    path: Path
    begin: int
    type: Any
    shape: tuple[int, ...]
    stored_shape: tuple[int, ...]

    def blocks(self) -> Iterator[np.ndarray]:
        """Its numbers, unpacked to float32, a few rows at a time: arrays of shape (numbers,)."""
        # A separate memory map, so that read parts of the file do not stay in memory.
        stored = np.memmap(self.path, dtype=np.uint8, mode="r", offset=self.begin, shape=self.stored_shape)
        rows = stored.reshape(-1, self.stored_shape[-1])
        step = max(1, BLOCK // self.shape[-1])
        for start in range(0, len(rows), step):
            unpacked = gguf_package().dequantize(rows[start : start + step], self.type)
            # Unpacked numbers would be a view of the file.
            yield np.require(unpacked, requirements=["C", "W"]).reshape(-1)

    def values(self) -> np.ndarray:
        """All its numbers, unpacked to float32."""
        whole = np.empty(prod(self.shape), dtype=np.float32)
        start = 0
        for block in self.blocks():
            whole[start : start + len(block)] = block
            start += len(block)
        return whole.reshape(self.shape)

    def check_type(self) -> None:
        """Check that its numbers can be unpacked.

        RAISES (NotImplementedError): The package gguf cannot unpack them.
        """
        gguf = gguf_package()
        gguf.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[self.type][1]), dtype=np.uint8), self.type)


@dataclass(frozen=True)
class GGUFFile:
    """The content of a model's file or files.

    paths (list[Path]): One, or the parts of a split model.
    metadata (dict[str, Any]): Values by key, such as "general.architecture".
    kinds (dict[str, tuple[int, ...]]): GGUF's number of each value's type; for an array, followed by that of its items.
    tensors (dict[str, GGUFTensor]): Tensors by name.
    """

    paths: list[Path]
    metadata: dict[str, Any]
    kinds: dict[str, tuple[int, ...]]
    tensors: dict[str, GGUFTensor]

    @property
    def name(self) -> str:
        """The name of the file; of a split model, that of its first part."""
        return self.paths[0].name

    @property
    def architecture(self) -> str:
        """GGUF's name of the architecture.

        RAISES (BaseError): The file does not state it.
        """
        architecture = self.metadata.get("general.architecture")
        if not isinstance(architecture, str) or not architecture:
            raise BaseError(f"{self.paths[0]} has no general.architecture: it contains no language model.")
        return architecture

    def value(self, key: str, default: Any = None) -> Any:
        """A value with a key of the architecture, such as "rope.freq_base"."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    @property
    def quantizations(self) -> dict[str, int]:
        """The number of tensors by the way they are packed, the most frequent first."""
        return dict(Counter(tensor.type.name for tensor in self.tensors.values()).most_common())


def read_gguf(path: Path) -> GGUFFile:
    """Read everything except the weights of a GGUF file, or of all parts of a split one.

    path (Path): The file; any part of a split one.
    RAISES (BaseError): It is not a GGUF file, its version is not supported, it is cut short or damaged, or a part is
        missing.
    """
    if not path.is_file():
        raise BaseError(f"there is no file {path}.")
    first = _read_part(path)
    count = first.metadata.get("split.count", 1)
    if count == 1:
        return first
    match = PART.fullmatch(path.name)
    if match is None or int(match["count"]) != count:
        raise BaseError(
            f"{path} is one of {count} parts of a split model, but its name does not end in a number such as "
            f"-00001-of-{count:05}.gguf, by which the others would be found. Restore the names of the parts, or join "
            f"them: llama-gguf-split --merge FIRST_PART WHOLE.gguf."
        )
    paths = [path.with_name(f"{match['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    missing = [part for part in paths if not part.is_file()]
    if missing:
        raise BaseError(
            f"{path} is one of {count} parts of a split model, and {missing[0]} is missing. Put all parts into one "
            f"folder; which one is named makes no difference."
        )
    parts = [_read_part(part) for part in paths]
    tensors = {name: tensor for part in parts for name, tensor in part.tensors.items()}
    wanted = parts[0].metadata.get("split.tensors.count", len(tensors))
    if len(tensors) != wanted:
        raise BaseError(f"the parts of {paths[0]} hold {len(tensors)} tensors instead of {wanted}: fetch them again.")
    return GGUFFile(paths, parts[0].metadata, parts[0].kinds, tensors)


def _read_part(path: Path) -> GGUFFile:
    with path.open("rb") as file:
        head = file.read(8)
        _check_head(head, path)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Parser(path, data).file()
            except (struct.error, ValueError, KeyError, IndexError, OverflowError) as error:
                if isinstance(error, BaseError):
                    raise
                raise BaseError(
                    f"{path} is cut short or damaged ({len(data):,} bytes: {error}). Fetch or copy it again."
                ) from error


def _check_head(head: bytes, path: Path) -> None:
    if head[:4] != MAGIC:
        raise BaseError(
            f"{path} is no GGUF file: it starts with {head[:4]!r} instead of {MAGIC!r}. (Files of older programs, "
            f"GGML and GGJT, are not read; a part of a file must be joined with the others first.)"
        )
    if len(head) < 8:
        raise BaseError(f"{path} is cut short: it has {len(head)} bytes. Fetch or copy it again.")
    (version,) = struct.unpack("<I", head[4:])
    if version in VERSIONS:
        return
    if struct.unpack(">I", head[4:])[0] in VERSIONS:
        raise BaseError(
            f"{path} is big-endian, which is not read. Fetch the little-endian file, or convert it with the script "
            f"gguf-convert-endian of the package gguf."
        )
    raise BaseError(
        f"{path} has GGUF version {version}; {' and '.join(map(str, VERSIONS))} are read. Fetch a newer file of the "
        f"model, or write it again with llama.cpp's llama-quantize."
    )


@dataclass
class _Parser:
    """Reads a file sequentially; reading past the end raises an error of `struct`, or a `ValueError`."""

    path: Path
    data: mmap.mmap
    offset: int = 8
    kinds: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def file(self) -> GGUFFile:
        tensor_count, key_count = self._number("Q"), self._number("Q")
        metadata: dict[str, Any] = {}
        for _ in range(key_count):
            key = self._string()
            kind = self._number("I")
            self.kinds[key] = (kind,)
            metadata[key] = self._array(key) if kind == ARRAY else self._value(kind)
        entries = [self._entry() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"its alignment is {alignment!r}")
        start = self.offset + -self.offset % alignment
        tensors = {name: self._tensor(name, shape, number, start + at) for name, shape, number, at in entries}
        return GGUFFile([self.path], metadata, self.kinds, tensors)

    def _number(self, kind: str) -> Any:
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.offset)
        self.offset += struct.calcsize(f"<{kind}")
        return value

    def _string(self) -> str:
        return self._bytes(self._number("Q")).decode("utf8", errors="replace")

    def _bytes(self, length: int) -> bytes:
        # Checked before reading: a damaged length may exceed memory.
        missing = self.offset + length - len(self.data)
        if missing > 0:
            raise ValueError(f"it ends {missing:,} bytes early")
        self.offset += length
        return self.data[self.offset - length : self.offset]

    def _value(self, kind: int) -> Any:
        return self._string() if kind == STRING else self._number(NUMBERS[kind])

    def _array(self, key: str) -> list[Any]:
        kind, length = self._number("I"), self._number("Q")
        self.kinds[key] = (ARRAY, kind)
        if kind in NUMBERS:
            dtype = np.dtype(f"<{NUMBERS[kind]}")
            return np.frombuffer(self._bytes(length * dtype.itemsize), dtype).tolist()
        if kind != STRING:
            raise ValueError(f"an array of type {kind}")
        return [self._string() for _ in range(length)]

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        count = self._number("I")
        if count > MOST_DIMENSIONS:
            raise ValueError(f"{name[:80]!r} has {count} dimensions")
        # The fastest dimension first.
        dimensions = [self._number("Q") for _ in range(count)]
        return name, tuple(reversed(dimensions)), self._number("I"), self._number("Q")

    def _tensor(self, name: str, shape: tuple[int, ...], number: int, begin: int) -> GGUFTensor:
        gguf = gguf_package()
        try:
            kind = gguf.GGMLQuantizationType(number)
        except ValueError:
            known = ", ".join(one.name for one in gguf.GGMLQuantizationType)
            raise BaseError(
                f"{self.path}: {name} has quantisation number {number}, which the installed gguf does not know. Fetch "
                f"the model in another quantisation, or upgrade gguf. Known are: {known}."
            ) from None
        stored = gguf.quant_shape_to_byte_shape(shape, kind)
        end = begin + prod(stored)
        if end > len(self.data):
            raise ValueError(f"{name} ends at byte {end:,}")
        return GGUFTensor(self.path, begin, kind, shape, stored)
