"""Finding the pipeline that a command line names."""

import importlib
from pathlib import Path

from spacy.util import load_config, load_meta

from ..pipeline.config_blocks import billm_blocks


def any_pipeline_folder(pipeline: str) -> Path:
    """The folder of a trained pipeline.

    pipeline (str): A folder, or the name of an installed package.
    RAISES (ValueError): There is none.
    """
    path = Path(pipeline)
    folder = path if path.is_dir() else _package_folder(pipeline)
    if not (folder / "config.cfg").is_file():
        raise ValueError(f"{folder} has no config.cfg: it is not a pipeline.")
    return folder


def pipeline_folder(pipeline: str) -> Path:
    """The folder of a trained pipeline that has a billm_transformer.

    pipeline (str): A folder, or the name of an installed package.
    RAISES (ValueError): There is none.
    """
    folder = any_pipeline_folder(pipeline)
    config = load_config(folder / "config.cfg")
    if not billm_blocks(config):
        raise ValueError(
            f"the pipeline {pipeline!r} has no billm_transformer; "
            f"it has: {', '.join(config.get('components', {})) or 'nothing'}."
        )
    return folder


def _package_folder(name: str) -> Path:
    try:
        package = Path(importlib.import_module(name).__file__ or "").parent
        meta = load_meta(package / "meta.json")
    except (ImportError, ValueError, TypeError, OSError) as error:
        # It may be a relative path, or a package that is not a pipeline.
        raise ValueError(f"there is neither a folder nor an installed pipeline {name!r}.") from error
    return package / f"{meta['lang']}_{meta['name']}-{meta['version']}"
