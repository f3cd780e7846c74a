"""Identifying a base model: digests over its tensors, independent of how they are distributed over files."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from ..errors import BaseError
from .tensor_files import StoredTensor, stored_tensors

# Bytes per sample. Three are read per tensor, whatever its size.
SAMPLE_BYTES = 4096


def fingerprint(folder: Path) -> str:
    """A digest over a sample of all tensors, which identifies a base.

    It covers the sorted names, shapes and dtypes, and sampled blocks of each tensor: the first bytes, the middle ones
    and the last. It does not depend on how the tensors are distributed over files.

    It tells bases apart in a fraction of the time of `full_digest`, but does not prove that each byte is the same.

    RETURNS (str): "sha256-blocks:" and 64 hexadecimal digits.
    RAISES (BaseError): A weight file is missing or is not a safetensors file.
    """
    tensors = sorted(stored_tensors(folder).items())
    return "sha256-blocks:" + _over(hashlib.sha256(_described(*item) + _samples(item[1])).digest() for item in tensors)


def checked_fingerprint(folder: Path, name: str, expected: str | None) -> str:
    """The fingerprint of a base, compared with the expected one.

    name (str): The base's, for the message.
    expected (str | None): What it must be, if that is known.
    RAISES (BaseError): It differs, or the base cannot be read.
    """
    digest = fingerprint(folder)
    if expected is not None and digest != expected:
        raise BaseError(
            f"the base {name!r} (in {folder}) is not the one this pipeline was trained on: its fingerprint is "
            f"{digest}, the pipeline's is {expected}. Name the right folder or revision."
        )
    return digest


def full_digest(folder: Path, progress: bool = False) -> str:
    """A digest over every byte of every tensor, which proves that two bases are the same.

    progress (bool): Show a progress bar.
    RETURNS (str): "sha256:" and 64 hexadecimal digits.
    RAISES (BaseError): A weight file is missing or is not a safetensors file.
    """
    tensors = sorted(stored_tensors(folder).items())
    size = sum(tensor.end - tensor.begin for _, tensor in tensors)
    digests = []
    with tqdm(total=size, unit="B", unit_scale=True, desc=f"reading {folder.name}", disable=not progress) as bar:
        for item in tensors:
            digest = hashlib.sha256(_described(*item))
            for chunk in item[1].chunks():
                digest.update(chunk)
                bar.update(len(chunk))
            digests.append(digest.digest())
    return "sha256:" + _over(digests)


def _over(digests: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for one in digests:
        digest.update(one)
    return digest.hexdigest()


def _described(name: str, tensor: StoredTensor) -> bytes:
    return json.dumps([name, tensor.dtype, list(tensor.shape)]).encode()


def _samples(tensor: StoredTensor) -> bytes:
    begin, end = tensor.begin, tensor.end
    last = max(begin, end - SAMPLE_BYTES)
    blocks = []
    with tensor.path.open("rb") as file:
        for start in (begin, (begin + last) // 2, last):
            file.seek(start)
            blocks.append(file.read(min(SAMPLE_BYTES, end - start)))
    return b"".join(blocks)
