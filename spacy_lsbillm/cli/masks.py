"""`python -m spacy lsbillm masks`: which layers of a pipeline attend in both directions."""

import importlib
from pathlib import Path

import typer
from spacy.util import load_config, load_meta
from wasabi import msg, table

from ..backbone import RECORD, MaskPlan, read_record, word_for
from . import app


@app.command("masks")
def masks_cli(
    pipeline: str = typer.Argument(..., help="A trained pipeline: its folder, or the name of its installed package"),
) -> None:
    """Show the attention mask of each layer of a trained pipeline, read from its record; no weights are loaded."""
    try:
        shown = pipeline_masks(pipeline)
    except ValueError as error:
        msg.fail("Cannot show the masks", str(error), exits=1)
    for name, record in shown.items():
        base, store = record["base"], record["store_base"]
        plan = MaskPlan.parse(record["mask"]["unmask"], base["layers"])
        msg.divider(f"{name}: {base['name']} ({base['model_type']}, {base['layers']} layers, base stored as {store})")
        rows = [(i, word_for(unmasked)) for i, unmasked in enumerate(plan.unmasked)]
        print(table(rows, header=("layer", "attention"), divider=True))
        print(f'unmask = "{plan.notation}": {plan.words}\n')


def pipeline_masks(pipeline: str) -> dict[str, dict]:
    """The record of each billm_transformer in a pipeline, by component name.

    RAISES (ValueError): There is no such pipeline, or it has no such component.
    """
    folder = _folder(pipeline)
    if not (folder / "config.cfg").is_file():
        raise ValueError(f"{folder} holds no config.cfg: it is not a pipeline.")
    components = load_config(folder / "config.cfg")["components"]
    names = [name for name, block in components.items() if block.get("factory") == "billm_transformer"]
    if not names:
        raise ValueError(
            f"the pipeline {pipeline!r} has no billm_transformer; it has: {', '.join(components) or 'nothing'}."
        )
    missing = [name for name in names if not (folder / name / RECORD).is_file()]
    if missing:
        raise ValueError(f"{folder / missing[0]} holds no {RECORD}: the pipeline was never initialised.")
    return {name: read_record(folder / name) for name in names}


def _folder(pipeline: str) -> Path:
    path = Path(pipeline)
    if path.is_dir():
        return path
    try:
        package = Path(importlib.import_module(pipeline).__file__ or "").parent
    except (ImportError, ValueError) as error:
        raise ValueError(f"there is neither a folder nor an installed package {pipeline!r}.") from error
    meta = load_meta(package / "meta.json")
    return package / f"{meta['lang']}_{meta['name']}-{meta['version']}"
