"""Write whole pipelines atomically: a stop at any moment leaves either the old one or the new one."""

import shutil
import time
import warnings
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import srsly
from spacy.language import Language
from spacy.util import load_config
from thinc.api import Config

from ..backbone import INT8, convert_stored
from ..cards import note_training, write_card
from ..errors import StorageError
from ..files import check_seal, replaced_folder, write_seal
from ..pipeline.config_blocks import billm_blocks
from ..pipeline.sources import name_sources

META, CONFIG = "meta.json", "config.cfg"


def save(nlp: Language, path: str | Path) -> None:
    """Save a pipeline atomically: write it beside the one that is there, then exchange the two in one step.
    (`nlp.to_disk` overwrites a pipeline file by file.) Files in the folder that are not part of the old pipeline are
    kept. If the pipeline has a billm_transformer, its model card is written as well.

    path (str | Path): The folder of a pipeline, or a new one.
    RAISES (StorageError): There is something else at the path, or another process is writing to it.
    """
    _save(nlp, Path(path))


def _save(nlp: Language, path: Path, seconds: float | None = None) -> None:
    name_sources(nlp.meta, (getattr(pipe, "model", None) for _, pipe in nlp.components))
    with replaced_folder(path, known_by=META) as folder:
        # Not nlp.to_disk, in whose place `save_whole` puts this function.
        type(nlp).to_disk(nlp, folder)
        _keep_others(path, folder)
        _write_card(folder, seconds)


def _keep_others(old: Path, new: Path) -> None:
    """Keep files that are not part of the old pipeline, such as notes that a user has put there."""
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


def _write_card(folder: Path, seconds: float | None = None) -> None:
    """The card of what was just written, if it has a billm_transformer. Whatever goes wrong with it is warned of: hours
    of training are worth more.

    seconds (float | None): How long the training took, if there was one.
    """
    try:
        if billm_blocks(load_config(folder / CONFIG)):
            write_card(folder, seconds=seconds)
    except Exception as error:
        warnings.warn(
            f"no model card was written, as {type(error).__name__}: {error}. The pipeline is saved. Try again with: "
            f"python -m spacy lsbillm card",
            stacklevel=3,
        )


def create_save_whole_v1() -> Callable[[Language], Language]:
    """Create a callback for `[training.before_to_disk]` that writes the pipelines of a training with `save`, and with a
    model card."""
    return _saved_by(_save_whole)


def create_write_card_v1() -> Callable[[Language], Language]:
    """Create a callback for `[training.before_to_disk]` that adds a model card (README.md) with the current scores to
    the pipelines that a training writes."""
    return _saved_by(_save_with_card)


def _saved_by(write: Callable[..., None]) -> Callable[[Language], Language]:
    """Create a callback that replaces `nlp.to_disk` with a function. It is made when the training begins."""
    return partial(_replace_to_disk, write, time.monotonic())


def _replace_to_disk(write: Callable[..., None], begun: float, nlp: Language) -> Language:
    note_training(nlp)
    nlp.to_disk = partial(write, nlp, begun)  # type: ignore[method-assign]
    return nlp


def _save_whole(nlp: Language, begun: float, path: str | Path, **arguments: Any) -> None:
    if any(arguments.values()):
        raise StorageError(f"save_whole writes whole pipelines: {', '.join(arguments)} cannot be given.")
    _save(nlp, Path(path), time.monotonic() - begun)


def _save_with_card(nlp: Language, begun: float, path: str | Path, **arguments: Any) -> None:
    type(nlp).to_disk(nlp, path, **arguments)
    _write_card(Path(path), time.monotonic() - begun)


def rewrite(
    source: Path, target: Path, store_base: str | None = None, base: str | None = None, kept: Collection[int] = ()
) -> None:
    """Copy a stored pipeline, with its base stored in another way if asked for, and with a model card. No model is
    loaded. Files in the target folder that are not part of the old pipeline are kept.

    store_base (str | None): "reference", "copy", "merged" or "int8"; None leaves it as it is.
    base (str | None): The folder or hub id of the base, if it is not at its recorded place.
    kept (Collection[int]): With "int8", layers whose weights stay in float32.
    RAISES (StorageError, ...): The pipeline is damaged, or cannot be stored in that way.
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
        _write_card(folder)


def _set_store_base(config: Config, names: list[str], store_base: str, path: Path) -> None:
    for name in names:
        model = config["components"][name]["model"]
        model["store_base"] = store_base
        if store_base == INT8:
            model |= {"quantization": INT8, "dtype": "float32", "fold_adapter": "auto", "device": None}
    config.to_disk(path)
