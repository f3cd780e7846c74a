"""`python -m spacy lsbillm export`: write a trained head as a folder that transformers loads by itself."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option
from wasabi import msg

from ..backbone.classifier import FIRST_VERSION
from ..exporting import export
from . import app
from .options import PipelineArgument
from .pipelines import pipeline_folder

FolderArgument = Annotated[Path, Argument(help="Output folder; one that this command wrote is replaced")]


@app.command("export")
def export_cli(
    pipeline: PipelineArgument,
    folder: FolderArgument,
    component: Annotated[str | None, Option(help="Head to export, if the pipeline has several")] = None,
    base: Annotated[str | None, Option(help="Folder or hub id of the base, if it has moved")] = None,
) -> None:
    """Write one head of a trained pipeline, with its base, for use without spaCy and without this package.

    The folder contains one of transformers' own classifiers, such as LlamaForTokenClassification, with the adapter
    folded into its weights, its labels, the tokenizer and a model card. It is loaded and compared with the pipeline
    before it gets its name. What a plain config.json cannot express is refused: masks that differ between layers,
    repetition, a mix of layers, other heads.
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
            f"The installed transformers keeps the causal mask whatever config.json says. The folder needs {version} "
            f"or newer: to have it checked, export again with such a version.",
        )
    else:
        share = f"{agreement.largest:.1g}"
        msg.info(f"{agreement.texts} texts: scores differ from the pipeline's by {share} of the largest")
    msg.good(f"Wrote {folder}", f"{exported.architecture}, {len(exported.labels)} labels")
