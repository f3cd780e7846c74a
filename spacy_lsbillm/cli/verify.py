"""`python -m spacy lsbillm verify`: is a stored pipeline whole, and its base the right one?"""

from typing import Annotated

from typer import Exit, Option
from wasabi import msg

from ..verification import verify
from . import app
from .pipelines import PipelineArgument, pipeline_folder


@app.command("verify")
def verify_cli(
    pipeline: PipelineArgument,
    base: Annotated[str | None, Option(help="The folder or hub id of its base, if not as the pipeline says")] = None,
) -> None:
    """Check a trained pipeline and the whole of its base.

    Every file of the transformer is compared with the digest it was saved with, every byte of the base with that in
    training; the other components are loaded. Ends with 1 if something is wrong. For a base of 16 GB this takes
    about as long as reading it.
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
