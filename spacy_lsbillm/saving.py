"""Writing whole pipelines so that a stop at any moment leaves the old one or the new one."""

import shutil
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import srsly
from spacy.language import Language
from spacy.util import load_config
from thinc.api import Config

from .backbone import INT8, convert_stored
from .errors import StorageError
from .files import check_seal, replaced_folder, write_seal
from .pipeline.sources import name_sources
from .training_config import billm_blocks

META, CONFIG = "meta.json", "config.cfg"


def save(nlp: Language, path: str | Path) -> None:
    """Write a pipeline beside the one that is there, then exchange them in one step. (`nlp.to_disk` overwrites a
    pipeline file by file.) Files in the folder that are no part of the old pipeline are kept.

    path (str | Path): A pipeline's folder, or a new one.
    RAISES (StorageError): There is something else at the path, or another process is writing there.
    """
    path = Path(path)
    name_sources(nlp.meta, (getattr(pipe, "model", None) for _, pipe in nlp.components))
    with replaced_folder(path, known_by=META) as folder:
        # Not nlp.to_disk, in whose place `save_whole` puts this function.
        type(nlp).to_disk(nlp, folder)
        _keep_others(path, folder)


def _keep_others(old: Path, new: Path) -> None:
    """Take over what is no part of the old pipeline, such as notes that somebody has put there."""
    if not (old / META).is_file():
        return
    try:
        parts = {META, CONFIG, "vocab", "tokenizer", *srsly.read_json(old / META).get("components", ())}
    except ValueError:
        # A pipeline that was written half: nothing is known of it, so nothing is dropped.
        parts = set()
    for path in old.iterdir():
        if path.name not in parts and not (new / path.name).exists():
            if path.is_dir():
                shutil.copytree(path, new / path.name)
            else:
                shutil.copy2(path, new / path.name)


def create_save_whole_v1() -> Callable[[Language], Language]:
    """For `[training.before_to_disk]`: the pipelines that a training writes are written with `save`."""
    return _save_whole


def _save_whole(nlp: Language) -> Language:
    nlp.to_disk = partial(_as_to_disk, nlp)  # type: ignore[method-assign]
    return nlp


def _as_to_disk(nlp: Language, path: str | Path, **arguments: Any) -> None:
    if any(arguments.values()):
        raise StorageError(f"save_whole writes whole pipelines: {', '.join(arguments)} cannot be given.")
    save(nlp, path)


def rewrite(
    source: Path, target: Path, store_base: str | None = None, base: str | None = None, kept: Collection[int] = ()
) -> None:
    """Write a stored pipeline again, with another part of its base if asked for. No model is loaded. Files at the
    target that are no part of the old pipeline there are kept.

    store_base (str | None): "reference", "copy", "merged" or "int8"; None leaves it as it is.
    base (str | None): The folder or hub id of the base, if it is not under its recorded name.
    kept (Collection[int]): With "int8", layers whose weights stay in float32.
    RAISES (StorageError, ...): It is damaged, or cannot be changed into that.
    """
    if source.resolve() in target.resolve().parents:
        raise StorageError(f"{target} lies inside {source}, which would be copied into itself. Name another folder.")
    config = load_config(source / CONFIG)
    names = list(billm_blocks(config))
    for name in names:
        check_seal(source / name)
    with replaced_folder(target, known_by=META) as folder:
        for path in source.iterdir():
            if store_base is not None and path.name in names:
                (folder / path.name).mkdir()
                convert_stored(path, folder / path.name, store_base, base, kept)
                write_seal(folder / path.name)
            elif path.is_dir():
                shutil.copytree(path, folder / path.name)
            else:
                shutil.copy2(path, folder / path.name)
        if store_base is not None:
            _set_store_base(config, names, store_base, folder / CONFIG)
        _keep_others(target, folder)


def _set_store_base(config: Config, names: list[str], store_base: str, path: Path) -> None:
    for name in names:
        model = config["components"][name]["model"]
        model["store_base"] = store_base
        if store_base == INT8:
            model |= {"quantization": INT8, "dtype": "float32", "fold_adapter": "auto"}
    config.to_disk(path)
