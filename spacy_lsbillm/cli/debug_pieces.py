"""`python -m spacy lsbillm debug-pieces`: how a base's tokenizer cuts a corpus."""

import json
from pathlib import Path
from typing import Annotated, Any

from spacy.util import load_config
from typer import Argument
from wasabi import msg, table

from ..alignment.statistics import CutSettings, count_pieces
from ..data.corpora import corpus_files, read_docs
from ..files import write_text
from ..pipeline.billm_transformer import DEFAULT_CONFIG
from ..pipeline.config_blocks import find_transformer
from ..pipeline.cut_settings import cutting_for
from . import app
from .options import ComponentOption, JsonOption

BATCH_SIZE = 256
SourceArgument = Annotated[str, Argument(help="A training config, or a base (folder or hub id)")]
CorpusArgument = Annotated[list[Path], Argument(help="Corpora: .spacy files or folders of them")]


@app.command("debug-pieces")
def debug_pieces_cli(
    config_or_base: SourceArgument,
    corpus: CorpusArgument,
    json_file: JsonOption = None,
    component: ComponentOption = None,
) -> None:
    """Show how the tokenizer of a base splits a corpus into pieces, before you train.

    Many pieces per token mean slower inference and words that the base model barely knows. A token without pieces has a
    vector of zeros. If a span starts or ends inside a piece, that boundary is hard to learn. Documents longer than the
    window are processed in several windows; nothing is truncated.

    With a config, the settings of its billm_transformer and nlp.batch_size apply; with a base, the defaults. Only the
    tokenizer and config.json of the base are read. The padding shown is that of prediction on a CPU.

    Example: python -m spacy lsbillm debug-pieces configs/default.cfg corpus/train.spacy corpus/dev.spacy
    """
    try:
        files = {str(path): corpus_files(path) for path in corpus}
        name, cutting = read_cutting(config_or_base, component)
        figures = {path: count_pieces(read_docs(path, parts), cutting).as_dict() for path, parts in files.items()}
        settings = {"base": name, "window": cutting.window, "overlap": cutting.overlap, "repeat": cutting.repeat}
        if json_file is not None:
            write_text(json_file, json.dumps({**settings, "corpora": figures}, indent=2, ensure_ascii=False) + "\n")
    except (ValueError, OSError) as error:
        msg.fail("Cannot count the pieces", str(error), exits=1)
    times = f", each {cutting.repeat + 1} times" if cutting.repeat else ""
    msg.divider(f"{name}: windows of {cutting.window} pieces, {cutting.overlap} shared{times}")
    print(
        table(list(zip(ROWS, *map(table_column, figures.values()), strict=True)), header=("", *figures), divider=True)
    )
    for path, numbers in figures.items():
        print_remarks(path, numbers)


def read_cutting(source: str, component: str | None = None) -> tuple[str, CutSettings]:
    """The name of the base, and how a config or the defaults cut documents for it.

    source (str): A config file, or the folder or hub id of a base.
    RAISES (ValueError): There is no such config or base, or one of its settings is not allowed.
    """
    if Path(source).is_file():
        config = load_config(source, interpolate=True)
        _, block = find_transformer(config, component, source)
        batch_size = config.get("nlp", {}).get("batch_size") or BATCH_SIZE
    else:
        block = {"model": {**DEFAULT_CONFIG["model"], "name": source}}
        batch_size = BATCH_SIZE
    return cutting_for(block, batch_size)


ROWS = (
    "documents",
    "tokens",
    "pieces",
    "pieces per token: mean",
    "median",
    "95th percentile",
    "most",
    "tokens without a piece",
    "unknown pieces",
    "added words without an embedding",
    "pieces of the longest document",
    "documents longer than the window",
    "windows that those take",
    "span boundaries",
    "of them inside a piece",
    "padding in batches",
)


def table_column(numbers: dict[str, Any]) -> list[str]:
    """The cells of a corpus for `ROWS`."""
    per_token = numbers["pieces_per_token"]
    spans = numbers["boundaries_inside_pieces"].values()
    return [
        f"{numbers['docs']:,}",
        f"{numbers['tokens']:,}",
        f"{numbers['pieces']:,}",
        f"{per_token['mean']:.2f}",
        str(per_token["median"]),
        str(per_token["p95"]),
        f"{per_token['max']} ({per_token['max_token']!r})",
        f"{numbers['tokens_without_pieces']['count']:,}",
        f"{numbers['unknown_pieces']['count']:,}",
        f"{numbers['without_embedding']['count']:,}",
        f"{numbers['longest_doc']:,}",
        f"{numbers['long_docs']['count']:,}",
        f"{numbers['long_docs']['windows']:,}",
        f"{sum(boundaries['boundaries'] for boundaries in spans):,}",
        f"{sum(boundaries['inside'] for boundaries in spans):,}",
        f"{100 * numbers['padding_share']:.1f} %",
    ]


def print_remarks(path: str, numbers: dict[str, Any]) -> None:
    """Say with examples what is unusual in a corpus."""
    if numbers["long_docs"]["count"]:
        msg.info(f"{path}: long documents go through overlapping windows; nothing is cut off.")
    for key, what in (
        ("tokens_without_pieces", "tokens without a piece"),
        ("unknown_pieces", "unknown pieces"),
        ("without_embedding", "words of the tokenizer without an embedding, which are cut into other pieces"),
    ):
        if numbers[key]["count"]:
            msg.warn(f"{path}: {what}: {', '.join(map(repr, numbers[key]['examples']))}")
    for where, boundaries in numbers["boundaries_inside_pieces"].items():
        if boundaries["inside"]:
            msg.warn(
                f"{path}: {boundaries['inside']} of {boundaries['boundaries']} boundaries in {where} fall inside a "
                f"piece: {', '.join(boundaries['examples'])}"
            )
