"""The commands under `python -m spacy lsbillm`."""

import typer
from spacy.cli._util import app as spacy_app

app = typer.Typer(name="lsbillm", no_args_is_help=True)


@app.callback()
def lsbillm() -> None:
    """Commands for bidirectional LLM pipelines. Run a command with --help for its options."""


spacy_app.add_typer(app)

from . import (  # noqa: E402, F401
    adapt,
    analyze,
    annotate,
    calibrate,
    card,
    check_base,
    convert,
    debug_pieces,
    distill,
    export,
    fit,
    import_gguf,
    init_config,
    masks,
    merge,
    perplexity,
    predict_mask,
    pretrain,
    quantize,
    search,
    serve,
    train,
    verify,
)
