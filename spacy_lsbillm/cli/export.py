"""`python -m spacy lsbillm export`: a trained head as a folder that transformers loads by itself."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option
from wasabi import msg

from ..backbone.classifier import FIRST_VERSION
from ..exporting import export
from . import app
from .pipelines import PipelineArgument, pipeline_folder

FolderArgument = Annotated[Path, Argument(help="The folder to write; one that this command has written is replaced")]


@app.command("export")
def export_cli(
    pipeline: PipelineArgument,
    folder: FolderArgument,
    component: Annotated[str | None, Option(help="The head to export, if there are several")] = None,
    base: Annotated[str | None, Option(help="The folder or hub id of the base, if not as the pipeline says")] = None,
) -> None:
    """Write one head of a trained pipeline and its base for use without spaCy and without this package.

    The folder holds one of transformers' own classifiers, such as LlamaForTokenClassification, with the adapter folded
    into its weights, its labels, the tokenizer and a model card. It is loaded and compared with the pipeline before it
    gets its name. What a plain config.json cannot say is refused: masks that differ between layers, repetition, a mix
    of layers, heads of other kinds.
    """
    try:
        exported = export(pipeline_folder(pipeline), folder, component, base)
    except ValueError as error:
        msg.fail("Cannot export the pipeline", str(error), exits=1)
    agreement = exported.agreement
    if agreement is None:
        version = ".".join(map(str, FIRST_VERSION))
        msg.warn(
            "Not compared with the pipeline",
            f"The installed transformers keeps the causal mask whatever config.json says. The folder is for {version} "
            f"and newer: export it once more there to have it checked.",
        )
    else:
        share = f"{agreement.largest:.1g}"
        msg.info(f"{agreement.texts} texts: scores differ from the pipeline's by {share} of the largest")
    msg.good(f"Wrote {folder}", f"{exported.architecture}, {len(exported.labels)} labels")
