"""The commands under `python -m spacy lsbillm`."""

import typer
from spacy.cli._util import app as spacy_app

app = typer.Typer(name="lsbillm", no_args_is_help=True)


@app.callback()
def lsbillm() -> None:
    """Commands for bidirectional LLM pipelines. Run one with --help to learn what it does."""


spacy_app.add_typer(app)

from . import (  # noqa: E402, F401
    adapt,
    analyze,
    annotate,
    calibrate,
    check_base,
    convert,
    debug_pieces,
    import_gguf,
    init_config,
    masks,
    merge,
    perplexity,
    predict_mask,
    pretrain,
    quantize,
    search,
    train,
    verify,
)
