"""`python -m spacy lsbillm verify`: check the files of a stored pipeline and its base."""

from typing import Annotated

from typer import Exit, Option
from wasabi import msg

from ..saving.verification import verify
from . import app
from .options import PipelineArgument
from .pipelines import pipeline_folder


@app.command("verify")
def verify_cli(
    pipeline: PipelineArgument,
    base: Annotated[str | None, Option(help="Folder or hub id of the base, if it has moved")] = None,
) -> None:
    """Check a trained pipeline and its base for missing, damaged or changed files.

    Compares every file of the transformer with the digest saved beside it, reads the whole base and compares it with
    the digest taken in training, and loads the other components. The exit status is 1 if anything is wrong. Takes
    about as long as reading the base from disk.
    """
    wrong = 0
    try:
        for finding in verify(pipeline_folder(pipeline), base, progress=True):
            if finding.problem is None:
                msg.good(finding.what)
            else:
                msg.fail(finding.what, finding.problem)
                wrong += 1
    except ValueError as error:
        msg.fail("Cannot verify the pipeline", str(error), exits=1)
    if wrong:
        raise Exit(1)
