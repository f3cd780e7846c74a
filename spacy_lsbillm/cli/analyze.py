"""`python -m spacy lsbillm analyze`: how much the labels of a corpus depend on the context to their right."""

import json
from pathlib import Path
from typing import Annotated, Any

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import load_model
from typer import Argument, Option
from wasabi import msg, table

from ..analysis import ContextChange, RightSide, right_context, right_side
from ..data.corpora import corpus_files, read_docs
from ..data.documents import tokens_alone
from ..errors import SettingError
from ..files import write_text
from ..pipeline.gold_spans import given_spans
from . import app
from .options import JsonOption

# As Dukić and Šnajder (2024) report them; other parsers give other figures.
PUBLISHED = (
    ("NER, CoNLL-2003", 0.593),
    ("chunking, CoNLL-2000", 0.518),
    ("trigger classification, ACE 2005", 0.411),
    ("aspect terms, restaurants", 0.396),
)
CorpusArgument = Annotated[Path, Argument(help="A corpus with labelled spans: a .spacy file or a folder of them")]
ParserOption = Annotated[
    str | None, Option("--parser", "-p", help="spaCy pipeline with a parser, if the corpus has no parses")
]
ModelOption = Annotated[
    str | None,
    Option(
        "--model", "-m", help="Trained pipeline with a sequence_labeler, to measure what its right context contributes"
    ),
]
SpansOption = Annotated[
    str | None, Option("--spans-key", "-k", help="Use the spans in doc.spans[KEY] instead of doc.ents")
]
SampleOption = Annotated[
    int, Option("--sample", help="Number of tokens to sample inside and outside spans, with --model")
]


@app.command("analyze")
def analyze_cli(
    corpus: CorpusArgument,
    parser: ParserOption = None,
    model: ModelOption = None,
    spans_key: SpansOption = None,
    sample: SampleOption = 2000,
    json_file: JsonOption = None,
) -> None:
    """Measure how much the labels of a corpus depend on the context to their right.

    From dependency parses (in the corpus, or made with --parser): the share of arcs between tokens in gold spans and
    their heads and children that point to the right (Dukić and Šnajder, 2024). From a trained sequence_labeler
    (--model): how its probabilities for a token change when the document is truncated right after it.

    Example: python -m spacy lsbillm analyze corpus/dev.spacy --parser en_core_web_sm --model training/model-best
    """
    try:
        figures = analyze(corpus, parser, model, spans_key, sample)
        if json_file is not None:
            write_text(json_file, json.dumps(figures, indent=2) + "\n")
    except (ValueError, OSError) as error:
        msg.fail("Cannot analyse the corpus", str(error), exits=1)
    if "dependency" in figures:
        print_dependency(figures["dependency"])
    if "right_context" in figures:
        print_context(figures["right_context"])


def analyze(corpus: Path, parser: str | None, model: str | None, spans_key: str | None, sample: int) -> dict[str, Any]:
    """Compute the figures that `analyze_cli` prints.

    RAISES (ValueError): There are no spans, or neither parses nor a model.
    """
    if sample < 1:
        raise SettingError(f"--sample {sample} is not allowed: it must be at least 1.")
    pipeline = _load(parser, "parser") if parser is not None else None
    labeler = _load(model, None) if model is not None else None
    docs = [doc for file in corpus_files(corpus) for doc in read_docs(str(file), [file])]
    gold = [(doc, given_spans(doc, spans_key) or []) for doc in docs]
    if not any(spans for _, spans in gold):
        where = "doc.ents" if spans_key is None else f"doc.spans[{spans_key!r}]"
        raise SettingError(f"the corpus has no spans in {where}. Name others with --spans-key.")
    parsed = all(doc.has_annotation("DEP") for doc in docs if len(doc) > 1)
    if not parsed and pipeline is None and labeler is None:
        raise SettingError(
            "the corpus has no parses. Name a pipeline that makes them, such as --parser en_core_web_sm, or a trained "
            "sequence_labeler with --model."
        )
    figures: dict[str, Any] = {}
    if parsed or pipeline is not None:
        counted = right_side(gold if pipeline is None else parses(pipeline, gold))
        figures["dependency"] = _as_dict(counted)
    if labeler is not None:
        plain = [(tokens_alone(doc, labeler.vocab), spans) for doc, spans in gold]
        changes = right_context(labeler, plain, sample)
        figures["right_context"] = {kind: vars(change) for kind, change in changes.items()}
    return figures


def parses(nlp: Language, gold: list[tuple[Doc, list[Span]]]) -> Any:
    """Parse documents with a pipeline, without changing their tokens."""
    for doc, (_, spans) in zip(nlp.pipe(tokens_alone(doc, nlp.vocab) for doc, _ in gold), gold, strict=True):
        yield doc, spans


def _load(name: str, needed: str | None) -> Language:
    try:
        nlp = load_model(name)
    except OSError as error:
        raise SettingError(f"there is no pipeline {name!r}: {error}") from error
    if needed is not None and needed not in nlp.pipe_names:
        raise SettingError(f"the pipeline {name!r} has no {needed}; it has: {', '.join(nlp.pipe_names)}.")
    return nlp


def _as_dict(counts: RightSide) -> dict[str, Any]:
    by_label = {label: _as_dict(one) for label, one in sorted(counts.by_label.items())}
    content = {"ratio": counts.ratio, "right": counts.right, "all": counts.total}
    return content | ({"by_label": by_label} if by_label else {})


def print_dependency(counts: dict[str, Any]) -> None:
    """Print the ratio, in all and per label, and the published ratios of other corpora."""
    msg.divider("right-side dependency ratio")
    rows = [("all", counts), *sorted(counts["by_label"].items(), key=lambda pair: -pair[1]["all"])]
    shown = [
        (name, "-" if one["ratio"] is None else f"{one['ratio']:.3f}", one["right"], one["all"]) for name, one in rows
    ]
    print(table(shown, header=("label", "ratio", "right", "arcs"), divider=True, aligns=("l", "r", "r", "r")))
    print("Published: " + ", ".join(f"{name} {ratio}" for name, ratio in PUBLISHED) + " (arXiv 2401.14556)\n")


def print_context(changes_by_kind: dict[str, dict[str, Any]]) -> None:
    """Print how probabilities change without the right context."""
    msg.divider("what a cut right context changes")
    changes = [(kind, ContextChange(**one)) for kind, one in changes_by_kind.items()]
    rows = [(k, f"{c.tokens:,}", f"{c.distance:.3f}", f"{c.whole:.3f}", f"{c.cut:.3f}") for k, c in changes]
    header = ("tokens", "number", "distance", "gold label, whole", "gold label, cut")
    print(table(rows, header=header, divider=True, aligns=("l", "r", "r", "r", "r")))
