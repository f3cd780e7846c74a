"""`python -m spacy lsbillm card`: write the model card of a trained pipeline."""

from pathlib import Path
from typing import Annotated

from typer import Option
from wasabi import msg

from ..cards import CARD, add_evaluation, write_card
from ..errors import SettingError
from . import app
from .options import PipelineArgument
from .pipelines import pipeline_folder

ScoresOption = Annotated[
    Path | None,
    Option("--scores", "-s", help="Further scores to include: a file written by spacy evaluate --output", exists=True),
]
DataOption = Annotated[
    str | None, Option("--data", "-d", help='Data that --scores were measured on, such as "test set corpus/test.spacy"')
]
ForceOption = Annotated[bool, Option("--force", "-f", help="Replace a README.md that was written or edited by hand")]


@app.command("card")
def card_cli(
    pipeline: PipelineArgument, scores: ScoresOption = None, data: DataOption = None, force: ForceOption = False
) -> None:
    """Write the model card of a trained pipeline, README.md in its folder, from the information in its files.

    The card describes the pipeline, its base and licences, which layers see right, scores with their data, labels, how
    it was trained and how to load it. Description, author, licence, sources and notes come from the pipeline's
    meta.json: edit them there and run the command again. Trainings with configs of init-config write the card
    automatically, and spacy package includes it in the package.

    Example: python -m spacy lsbillm card training/model-best --scores training/metrics.json --data "test set"
    """
    try:
        if (scores is None) != (data is None):
            raise SettingError("--scores and --data go together: name the file with scores and their data.")
        folder = pipeline_folder(pipeline)
        if scores is not None and data is not None:
            add_evaluation(folder, data, scores)
        written = write_card(folder, force)
    except (ValueError, OSError) as error:
        msg.fail("Cannot write the card", str(error), exits=1)
    if not written:
        msg.fail(
            f"{folder / CARD} was written or edited by hand",
            "Replace it with --force. Description, author, licence, sources and notes of a card can be edited in "
            "meta.json.",
            exits=1,
        )
    msg.good(f"Wrote {folder / CARD}")
