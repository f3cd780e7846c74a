"""`python -m spacy lsbillm merge` and `save`: copy a stored pipeline, or store its base differently."""

from pathlib import Path
from typing import Annotated

from typer import Option
from wasabi import msg

from ..backbone import STORE_BASE
from ..saving.rewriting import rewrite
from ..values import check_choice
from . import app
from .options import NewPipelineArgument, PipelineArgument
from .pipelines import pipeline_folder

BaseOption = Annotated[str | None, Option(help="Folder or hub id of the base, if it has moved")]


@app.command("merge")
def merge_cli(
    pipeline: PipelineArgument,
    output: NewPipelineArgument,
    store_base: Annotated[str, Option(help=f"How the base is stored: {', '.join(STORE_BASE)}")] = "merged",
    base: BaseOption = None,
) -> None:
    """Write a trained pipeline with its base stored in a different way.

    "merged" folds the adapter into a copy of the base, in the pipeline's dtype (after 4-bit training, into the
    unquantized base). "copy" stores the base beside the adapter. "reference" stores only the adapter; the base is then
    located when the pipeline is loaded. No model is loaded: tensors are copied one at a time.
    """
    try:
        check_choice("--store-base", store_base, STORE_BASE)
        rewrite(pipeline_folder(pipeline), output, store_base, base)
    except ValueError as error:
        msg.fail("Cannot write the pipeline", str(error), exits=1)
    msg.good(f"Wrote {output} ({_size(output)})", f"store_base = {store_base}")


@app.command("save")
def save_cli(pipeline: PipelineArgument, output: NewPipelineArgument) -> None:
    """Copy a trained pipeline atomically: at any moment OUTPUT holds either the old pipeline or the new one.

    Its files are checked first; then everything is written beside the output folder, synced to the disk, and exchanged
    with it in one step.
    """
    try:
        rewrite(pipeline_folder(pipeline), output)
    except ValueError as error:
        msg.fail("Cannot write the pipeline", str(error), exits=1)
    msg.good(f"Wrote {output} ({_size(output)})")


def _size(folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{size / 1e6:,.1f} MB"
