"""Writing a stored pipeline again, with its base stored in another form. No model is loaded."""

import shutil
from collections.abc import Collection
from pathlib import Path

from spacy.util import load_config
from thinc.api import Config

from ..backbone import INT8, convert_stored
from ..errors import StorageError
from ..files import check_seal, replaced_folder, write_seal
from ..pipeline.config_blocks import billm_blocks
from .pipelines import CONFIG, META, keep_others, write_card_of


def rewrite(
    source: Path, target: Path, store_base: str | None = None, base: str | None = None, kept: Collection[int] = ()
) -> None:
    """Copy a stored pipeline, with its base stored in another form if requested, and with a model card.

    No model is loaded. Files in the target folder that are not part of the old pipeline are kept.

    store_base (str | None): "reference", "copy", "merged" or "int8"; None does not change it.
    base (str | None): The folder or hub id of the base, if it is not at its recorded place.
    kept (Collection[int]): With "int8", layers whose weights stay in float32.
    RAISES (StorageError, ...): The pipeline is damaged, or cannot be stored in that form.
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
        keep_others(target, folder)
        write_card_of(folder)


def _set_store_base(config: Config, names: list[str], store_base: str, path: Path) -> None:
    for name in names:
        model = config["components"][name]["model"]
        model["store_base"] = store_base
        if store_base == INT8:
            model |= {"quantization": INT8, "dtype": "float32", "fold_adapter": "auto", "device": None}
    config.to_disk(path)
