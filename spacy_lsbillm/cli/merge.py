"""`python -m spacy lsbillm merge` and `save`: writing a stored pipeline again."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option
from wasabi import msg

from ..backbone import STORE_BASE
from ..saving import rewrite
from ..values import check_choice
from . import app
from .pipelines import PipelineArgument, pipeline_folder

OutputArgument = Annotated[Path, Argument(help="The folder to write; a pipeline that is there is replaced as a whole")]
BaseOption = Annotated[str | None, Option(help="The folder or hub id of the base, if not as the pipeline says")]


@app.command("merge")
def merge_cli(
    pipeline: PipelineArgument,
    output: OutputArgument,
    store_base: Annotated[str, Option(help=f"What of the base is in it: {', '.join(STORE_BASE)}")] = "merged",
    base: BaseOption = None,
) -> None:
    """Write a trained pipeline with another part of its base in it.

    "merged" folds the adapter into a copy of the base, in the pipeline's dtype (from 4-bit training, into the
    unquantised base); "copy" puts the base beside the adapter; "reference" leaves the adapter alone, and the base is
    looked for where the pipeline is loaded. No model is loaded for it: tensors are copied one by one.
    """
    try:
        check_choice("--store-base", store_base, STORE_BASE)
        rewrite(pipeline_folder(pipeline), output, store_base, base)
    except ValueError as error:
        msg.fail("Cannot write the pipeline", str(error), exits=1)
    msg.good(f"Wrote {output} ({_size(output)})", f"store_base = {store_base}")


@app.command("save")
def save_cli(pipeline: PipelineArgument, output: OutputArgument) -> None:
    """Copy a trained pipeline so that at any moment the old one or the new one is there, whole.

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
