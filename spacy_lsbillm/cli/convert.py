"""`python -m spacy lsbillm convert`: annotated text to spaCy's binary format."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.util import get_lang_class
from tqdm import tqdm  # type: ignore[import-untyped]
from typer import Argument, Option
from wasabi import msg

from ..data import Labels, Record, choice_records, labels_of, make_doc, read_records
from ..data.documents import classes
from ..data.records import SUFFIXES, data_files
from ..errors import DataError
from ..files import replaced_file
from . import app

InputArgument = Annotated[list[Path], Argument(help=f"Files ({', '.join(SUFFIXES)}) or folders of them")]
OutputArgument = Annotated[Path, Argument(help="Folder for the .spacy files, one per input file")]
LangOption = Annotated[str, Option("--lang", "-l", help="Language code, which selects the tokenizer")]
SpansOption = Annotated[
    str | None, Option("--spans-key", "-k", help="Write spans to doc.spans[KEY] instead of doc.ents; they may overlap")
]
ChoicesOption = Annotated[
    str | None,
    Option(
        "--choices",
        "-c",
        help='For lines with "question", "choices" and "answer". joint: one document per question; each: per choice',
    ),
]
LabelsOption = Annotated[
    Path | None, Option("--labels-from", help="File that contains all classes. Default: train.*, or all files together")
]
DocumentOption = Annotated[
    str | None,
    Option("--document-key", "-d", help="JSONL key that names the document a line belongs to"),
]


@app.command("convert")
def convert_cli(
    source: InputArgument,
    output: OutputArgument,
    lang: LangOption = "en",
    spans_key: SpansOption = None,
    choices: ChoicesOption = None,
    labels_from: LabelsOption = None,
    document_key: DocumentOption = None,
) -> None:
    """Convert IOB, CoNLL and JSONL files to .spacy files, keeping the tokens as given.

    IOB and CoNLL: one token per line with its IOB2 tag in the last column, and a blank line after each sentence.
    JSONL: one object per line with "text" or "tokens", and any of "label", "labels" or "cats", "tags" (IOB2) and
    "spans" ("start", "end", "label"). With "label" or "labels", classes not listed count as 0; all files share the
    classes of train.* or of --labels-from.

    Each sentence or line becomes a document. If the file says which longer document it belongs to (-DOCSTART- lines,
    several blank lines in a row, or --document-key), this is stored for spacy-lsbillm.JoinedCorpus.v1. Invalid input
    is rejected with its file and line before anything is written.

    Example: python -m spacy lsbillm convert data/wnut17 corpus
    """
    try:
        files = [file for path in source for file in data_files(path)]
        convert(files, output, get_lang_class(lang)(), spans_key, choices, labels_from, document_key)
    except (ValueError, OSError, ImportError) as error:
        msg.fail("Cannot convert", str(error), exits=1)


def convert(
    files: list[Path],
    output: Path,
    nlp: Language,
    spans_key: str | None = None,
    choices: str | None = None,
    labels_from: Path | None = None,
    document_key: str | None = None,
) -> list[Path]:
    """Convert files as `convert_cli` does. All files are read before the first is written.

    RAISES (DataError): Something does not fit, or two files would be written under one name.
    """
    if document_key is not None and choices is not None:
        raise DataError("--document-key cannot go with --choices: each question is a text of its own.")
    targets = [output / f"{file.stem}.spacy" for file in files]
    for target in targets:
        if targets.count(target) > 1:
            raise DataError(f"two of the files would be written to {target}. Convert them one by one.")
    labels = _labels(files, labels_from, document_key) if choices is None else Labels()
    stores = []
    for file in files:
        docs = DocBin(store_user_data=True)
        warned: set[str] = set()
        first_cut: str | None = None
        records = _records(file, choices, document_key)
        for record in tqdm(records, desc=file.name, unit=" documents", file=sys.stderr, leave=False):
            _warn_of_new(record, labels, warned)
            doc = make_doc(nlp, record, labels, spans_key)
            if first_cut is None and "tokens" in record.content and _is_cut_again(nlp, doc):
                first_cut = record.where
            docs.add(doc)
        if not len(docs):
            raise DataError(f"{file} holds no document.")
        if first_cut is not None:
            warnings.warn(
                f"{first_cut} has other tokens than the tokenizer of {nlp.lang!r} makes of its text. In training "
                f"spacy.Corpus.v1 makes them anew, and what does not fit is left out of the loss. To keep the tokens, "
                f"leave out 'text', or train from the JSONL file with spacy-lsbillm.JsonlCorpus.v1.",
                stacklevel=2,
            )
        stores.append(docs)
    output.mkdir(parents=True, exist_ok=True)
    for target, docs in zip(targets, stores, strict=True):
        with replaced_file(target) as partial:
            docs.to_disk(partial)
        msg.good(f"{target}: {len(docs):,} documents")
    return targets


def _is_cut_again(nlp: Language, doc: Doc) -> bool:
    """Whether spaCy's corpus reader will give a document other tokens."""
    return not doc.has_unknown_spaces and [token.text for token in doc] != [
        token.text for token in nlp.make_doc(doc.text)
    ]


def _records(file: Path, choices: str | None, document_key: str | None) -> Iterator[Record]:
    records = read_records(file, document_key)
    return records if choices is None else choice_records(records, choices)


def _labels(files: list[Path], labels_from: Path | None, document_key: str | None) -> Labels:
    """The classes of one file if it says all, else of all together."""
    train = [file for file in files if file.stem == "train"]
    chosen = [labels_from] if labels_from is not None else train or files
    # With the key, which would be warned of; the file of --labels-from need not have it.
    keys = dict.fromkeys(files, document_key)
    return labels_of(record for file in chosen for record in read_records(file, keys.get(file)))


def _warn_of_new(record: Record, labels: Labels, warned: set[str]) -> None:
    new = set(classes(record) or []) - set(labels.names) - warned
    if new:
        warned |= new
        warnings.warn(
            f"{record.where} has the class {min(new)!r}, which the training file does not have: no model can learn it.",
            stacklevel=2,
        )
