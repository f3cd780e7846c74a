"""What identifies an annotation, so that an output folder is not filled by two different ones."""

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import content_of, digest
from .settings import AnnotationSettings
from .sources import InputFile

# Larger files are identified by this many blocks of this many bytes, evenly spaced from the first to the last.
WHOLE = 64 * 1024 * 1024
BLOCKS, BLOCK = 64, 1024 * 1024
LIBRARIES = ("spacy-lsbillm", "spacy", "spacy-transformers", "torch", "transformers")
# The maximum number of differences in a message.
MOST_SHOWN = 10


def identity_of(settings: AnnotationSettings, format_name: str, files: Sequence[InputFile]) -> dict[str, Any]:
    """Everything that decides the output, with digests of files.

    That is the content of the pipeline, the code and each input file, and the settings.
    """
    return {
        "pipeline": {"name": settings.pipeline, "content": content_of(settings.pipeline_folder)},
        "code": None if settings.code is None else content_of(settings.code),
        "input": {file.name: {"bytes": file.size, "content": _content(file)} for file in files},
        "settings": {
            "format": format_name,
            "shard-size": settings.shard_size,
            "text-key": settings.keys.text,
            "id-key": settings.keys.id,
            "spans-key": None if settings.spans_keys is None else list(settings.spans_keys),
            "max-length": settings.max_length,
            "top-tags": settings.top_tags or None,
        },
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The differences between two identities, one line each, shortened to a readable number."""
    lines = []
    if old["pipeline"]["content"] != new["pipeline"]["content"]:
        lines.append(f"the pipeline was {old['pipeline']['name']!r} with other files in it")
    if old["code"] != new["code"]:
        lines.append("the code (--code) was different")
    for name in sorted(old["input"].keys() | new["input"].keys()):
        before, now = old["input"].get(name), new["input"].get(name)
        if before != now:
            what = "was not there" if before is None else "is no longer there" if now is None else "was different"
            lines.append(f"the input file {name!r} {what}")
    for name, value in new["settings"].items():
        if old["settings"].get(name) != value:
            lines.append(f"--{name} was {old['settings'].get(name)}, and is {value}")
    more = len(lines) - MOST_SHOWN
    return [*lines[:MOST_SHOWN], f"and {more:,} more"] if more > 0 else lines


def versions() -> dict[str, str | None]:
    """The versions of the libraries that compute, as others may give slightly different numbers."""
    installed: dict[str, str | None] = {}
    for library in LIBRARIES:
        try:
            installed[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            installed[library] = None
    return installed


def _content(file: InputFile) -> str:
    if file.size <= WHOLE:
        return digest(file.path)[:32]
    return _sampled(file.path, file.size)


def _sampled(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for i in range(BLOCKS):
            stream.seek((size - BLOCK) * i // (BLOCKS - 1))
            digest.update(stream.read(BLOCK))
    return f"{BLOCKS} blocks {digest.hexdigest()[:32]}"
