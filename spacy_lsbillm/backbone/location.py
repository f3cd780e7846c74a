"""Finding the folder of a base: a local folder, one given by a map, or the hub's cache."""

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import BaseError, SettingError
from ..files import parse_json
from .tensor_files import weight_files

# A JSON file {"name of a base": "folder"}; relative folders are relative to the file.
MAP_VARIABLE = "SPACY_LSBILLM_BASES"
COMMIT = re.compile(r"[0-9a-f]{40}")
# The files fetched from a hub repository: no pickles, no code, no second copies of the weights in other formats. Card
# and licence must accompany a copy.
TOKENIZER_FILES = ("*.json", "*.jinja", "*.txt", "tokenizer.model", "README.md", "LICENSE*", "NOTICE*")
MODEL_FILES = (*TOKENIZER_FILES, "*.safetensors")
HUB_IGNORED = ["original/*", "consolidated*", "onnx/*", "adapter_model*"]


def resolve_folder(
    name: str, revision: str | None = None, files: Sequence[str] = MODEL_FILES, hub: bool = True
) -> Path:
    """The local folder of a base.

    Tried in this order: the map in the environment variable `SPACY_LSBILLM_BASES`, a folder of that name, the hub's
    cache, the hub.

    files (Sequence[str]): Patterns of the files to fetch: `MODEL_FILES`, or `TOKENIZER_FILES` for all but the weights.
    hub (bool): Whether it may be on the hub; a base that was made by a command is not.
    RAISES (BaseError): There is no such folder, and the hub has no such model or cannot be reached.
    RAISES (SettingError): The map cannot be read.
    """
    local = local_folder(name)
    if local is not None:
        return local
    path = Path(name).expanduser()
    if path.is_file():
        raise BaseError(f"the base {name!r} is a file: name the folder that holds it.")
    looks_like_path = path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1 or "\\" in name
    if not hub or (looks_like_path and "/" in name):
        raise BaseError(
            f"there is no folder {name!r}{_seen_from(path)}. Name an existing folder{' or a hub id' if hub else ''}, "
            f"or map it to its folder with {MAP_VARIABLE}."
        )
    return _from_hub(name, revision, files)


def local_folder(name: str) -> Path | None:
    """The folder of a base that needs no hub: that of the map, or a folder of that name; None if there is neither.

    RAISES (SettingError): The map cannot be read.
    """
    mapped = _mapped(name)
    if mapped is not None:
        return mapped
    path = Path(name).expanduser()
    return path.resolve() if path.is_dir() else None


def _from_hub(name: str, revision: str | None, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    patterns = {"allow_patterns": list(files), "ignore_patterns": HUB_IGNORED}
    try:
        if revision is not None and COMMIT.fullmatch(revision):
            # A commit never changes: the cache is up to date.
            with contextlib.suppress(FileNotFoundError):
                folder = Path(snapshot_download(name, revision=revision, local_files_only=True, **patterns))
                if _is_whole(folder, files):
                    return folder
        return Path(snapshot_download(name, revision=revision, **patterns))
    except Exception as error:
        # The hub's client raises errors of many libraries. In every case the base is unavailable.
        raise BaseError(
            f"the base {name!r} is not a folder{_seen_from(Path(name))}, and its revision {revision or 'main'!r} could "
            f"not be fetched from the hub ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no details'}). Check the name; without a network, name a "
            f"folder that holds the model, or map it to its folder with {MAP_VARIABLE}."
        ) from error


def _is_whole(folder: Path, files: Sequence[str]) -> bool:
    """Whether a folder of the hub's cache has all requested files; an interrupted download leaves only some."""
    if "*.safetensors" in files:
        with contextlib.suppress(BaseError):
            return bool(weight_files(folder))
        return False
    return any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json"))


def _mapped(name: str) -> Path | None:
    file = os.environ.get(MAP_VARIABLE)
    if not file:
        return None
    path = Path(file).expanduser()
    try:
        folders = parse_json(path.read_text(encoding="utf8"))
        folder = folders.get(name)
        if folder is None:
            return None
        mapped = path.parent / Path(folder).expanduser()
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SettingError(
            f"{MAP_VARIABLE} = {file!r} cannot be read ({error}): it must name a JSON file such as "
            f'{{"Qwen/Qwen2.5-0.5B": "/models/qwen2.5-0.5b"}}.'
        ) from error
    if not mapped.is_dir():
        raise BaseError(f"{file} says that the base {name!r} is in {mapped}, but there is no such folder.")
    return mapped.resolve()


def _seen_from(path: Path) -> str:
    return "" if path.is_absolute() else f" (relative to {Path.cwd()})"
