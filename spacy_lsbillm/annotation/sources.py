"""Reading the input: the documents of text, JSONL, `.spacy` and Parquet files, one after the other, still encoded.

They are decoded in the process that annotates them, see `documents`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from ..errors import DataError
from .arrow import parquet

TEXT, JSONL, SPACY, PARQUET = ".txt", ".jsonl", ".spacy", ".parquet"
SUFFIXES = (TEXT, JSONL, SPACY, PARQUET)
# Longer lines are set aside: a file without line ends would be read into memory as a whole.
LONGEST_LINE = 128 * 1024 * 1024
# The number of rows of a Parquet file that are read at once.
ROWS = 1024
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Keys:
    """Names of the text and the id in a JSONL line or a Parquet row.

    text (str), id (str): Names of a key or column.
    """

    text: str = "text"
    id: str = "id"


@dataclass(frozen=True)
class InputFile:
    """A file of documents.

    path (Path): The file.
    name (str): Its path relative to the input, which identifies its documents.
    size (int): Its size in bytes.
    """

    path: Path
    name: str
    size: int

    @property
    def suffix(self) -> str:
        """The file's suffix, which decides how it is read."""
        return self.path.suffix


@dataclass(frozen=True)
class Line:
    """A line of a text or JSONL file, without its line end.

    content (bytes): The bytes of the line, without a byte order mark.
    suffix (str): The suffix of the file.
    """

    content: bytes
    suffix: str


@dataclass(frozen=True)
class Row:
    """A row of a Parquet file.

    text (Any), id (Any): The values of these columns; an id of None: there is none.
    """

    text: Any
    id: Any


@dataclass(frozen=True)
class Tokens:
    """The tokens of a document of a `.spacy` file.

    words (list[str]), spaces (list[bool] | None): As for a `Doc`.
    id (Any): The document's id in `doc.user_data["id"]`.
    """

    words: list[str]
    spaces: list[bool] | None
    id: Any


@dataclass(frozen=True)
class Broken:
    """An entry of the input that is not a readable document.

    error (str): Why not.
    """

    error: str


@dataclass(frozen=True)
class Item:
    """A document that has not been decoded yet.

    place (str): The file's name and the number of the line, row or document in it, from 1; or only the file's name if
        the file as a whole cannot be read.
    content (Line | Row | Tokens | Broken): The encoded document.
    size (int): Bytes of its text, or an estimate.
    share (float): Bytes of its file that it accounts for.
    """

    place: str
    content: Line | Row | Tokens | Broken
    size: int
    share: float


def input_files(path: Path) -> tuple[list[InputFile], list[str]]:
    """The input file, or those in a folder and its subfolders whose suffix is known.

    Hidden files and folders, and those whose name begins with an underscore, are skipped.

    RETURNS (tuple): The files by name, and the names of those with unknown suffixes.
    RAISES (DataError): There are none, or the suffix of the file is unknown.
    """
    known = ", ".join(SUFFIXES)
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise DataError(f"{path}: the suffix {path.suffix!r} is not known. Use one of: {known}.")
        return [InputFile(path, path.name, path.stat().st_size)], []
    if not path.is_dir():
        raise DataError(f"there is no file or folder {str(path)!r}.")
    files, others = [], []
    for file in path.rglob("*"):
        below = file.relative_to(path)
        if not file.is_file() or any(part.startswith((".", "_")) for part in below.parts):
            continue
        if file.suffix in SUFFIXES:
            files.append(InputFile(file, below.as_posix(), file.stat().st_size))
        else:
            others.append(below.as_posix())
    if not files:
        raise DataError(f"the folder {str(path)!r} holds no file that ends in {known}.")
    return sorted(files, key=lambda file: file.name), sorted(others)


def read_items(file: InputFile, keys: Keys) -> Iterator[Item]:
    """The documents of a file, in order.

    An unreadable document gives an item with `Broken`; if the file itself becomes unreadable, this is the last item.
    """
    read = {TEXT: _lines, JSONL: _lines, PARQUET: _rows, SPACY: _docs}[file.suffix]
    number = 0
    try:
        for number, content, size, share in read(file, keys):
            yield Item(f"{file.name}:{number}", content, size, share)
    except Exception as error:
        # Arrow, spaCy and zlib raise many kinds of errors for a file that is not what its name says.
        where = f" after {number:,} documents" if number else ""
        message = f"the file cannot be read{where} as {file.suffix}: {type(error).__name__}: {error}"
        yield Item(file.name, Broken(message), 0, 0.0)


# What the readers below yield: the number of a document, its content, its size and its share of the file.
Found = tuple[int, Line | Row | Tokens | Broken, int, float]


def _lines(file: InputFile, keys: Keys) -> Iterator[Found]:
    with file.path.open("rb") as stream:
        number = 0
        while line := stream.readline(LONGEST_LINE + 1):
            number += 1
            size = len(line)
            whole = size <= LONGEST_LINE
            while not whole and line and not line.endswith(b"\n"):
                line = stream.readline(LONGEST_LINE)
                size += len(line)
            if not whole:
                yield number, Broken(f"the line has {size:,} bytes, more than {LONGEST_LINE:,}"), 0, size
                continue
            content = line.rstrip(b"\r\n")
            if number == 1:
                content = content.removeprefix(BOM)
            # A blank line is not a document.
            if content.strip():
                yield number, Line(content, file.suffix), len(content), size


def _rows(file: InputFile, keys: Keys) -> Iterator[Found]:
    with parquet().ParquetFile(file.path) as stream:
        names = stream.schema_arrow.names
        if keys.text not in names:
            raise DataError(f"it has no column {keys.text!r}, but {', '.join(names)}. Name one with --text-key.")
        columns = [keys.text] + [keys.id] * (keys.id in names)
        share = file.size / max(1, stream.metadata.num_rows)
        number = 0
        for batch in stream.iter_batches(batch_size=ROWS, columns=columns):
            ids = batch.column(keys.id) if keys.id in names else [None] * len(batch)
            for text, id_ in zip(batch.column(keys.text), ids, strict=True):
                number += 1
                try:
                    row = Row(text.as_py(), None if id_ is None else id_.as_py())
                except UnicodeDecodeError as error:
                    yield number, Broken(f"it is not UTF-8: {error}"), 0, share
                else:
                    yield number, row, len(row.text.encode(errors="replace")) if isinstance(row.text, str) else 0, share


def _docs(file: InputFile, keys: Keys) -> Iterator[Found]:
    stored = DocBin().from_disk(file.path)
    share = file.size / max(1, len(stored))
    # A separate vocabulary, as it grows with each text.
    for number, doc in enumerate(stored.get_docs(Vocab()), start=1):
        yield number, _tokens(doc), len(doc.text.encode()), share


def _tokens(doc: Doc) -> Tokens:
    spaces = None if doc.has_unknown_spaces else [bool(token.whitespace_) for token in doc]
    return Tokens([token.text for token in doc], spaces, doc.user_data.get("id"))
