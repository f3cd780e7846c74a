"""Records: annotated texts, read one after the other from IOB, CoNLL and JSONL files."""

import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from .annotation_tools import PARTIAL, TOOL_KEYS, AnnotationTool

IOB_SUFFIXES = (".iob", ".iob2", ".conll", ".bio", ".tsv")
SUFFIXES = (*IOB_SUFFIXES, ".jsonl")
# The keys of a JSONL line that are read.
KEYS = ("text", "tokens", "tags", "spans", "annotated", "label", "labels", "cats", "question", "choices", "answer")
# What to do with unsupported suffixes.
HINTS = {
    ".json": " Write one object per line, without the list around them, to a .jsonl file; in Label Studio, use "
    "JSON-MIN.",
    ".ann": " Convert brat's files to columns, with one token and its tag per line.",
}
NAMES: dict[type, str] = {str: "a string", list: "a list", int: "a whole number", dict: "an object"}


@dataclass(frozen=True)
class Record:
    """An annotated text as it is in a file.

    content (dict): "text", or "tokens", or both; and any of "tags" (IOB2, one per token), "spans" (a list of "start",
        "end" in characters and "label"), "partial" (true if tokens outside of the spans are unknown), "label" or
        "labels", "annotated" (the labels of spans for which it was annotated); or "question", "choices" and "answer".
    where (str): The file and the line, for messages.
    document (str | None): The document that the text is part of, if the file names it.
    """

    content: dict[str, Any]
    where: str
    document: str | None = None

    def get(self, key: str, kind: type | tuple[type, ...]) -> Any:
        """The value of a key, or None.

        RAISES (DataError): It has another type.
        """
        value = self.content.get(key)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            names = " or ".join(NAMES[one] for one in (kind if isinstance(kind, tuple) else (kind,)))
            raise DataError(f"{self.where}: {key!r} is {value!r}; it must be {names}.")
        return value


def read_records(path: Path, document_key: str | None = None) -> Iterator[Record]:
    """Read the records of a file, in the format of its suffix.

    document_key (str | None): The key that names the document of a JSONL line; other formats mark documents themselves.
    RAISES (DataError): The suffix is unknown, or a line cannot be read.
    """
    if path.suffix == ".jsonl":
        return read_jsonl(path, document_key)
    if path.suffix in IOB_SUFFIXES:
        return read_iob(path)
    raise DataError(
        f"{path}: the suffix {path.suffix!r} is not known. Use one of: {', '.join(SUFFIXES)}."
        f"{HINTS.get(path.suffix, '')}"
    )


def data_files(path: Path) -> list[Path]:
    """A file, or the readable files of a folder.

    RAISES (DataError): There are none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"there is no file or folder {str(path)!r}.")
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if not files:
        raise DataError(f"the folder {str(path)!r} holds no file that ends in {', '.join(SUFFIXES)}.")
    return files


def read_jsonl(path: Path, document_key: str | None = None) -> Iterator[Record]:
    """Read one JSON object per line.

    Empty lines are skipped, and so is what an annotator has rejected or ignored, which a warning counts. A warning
    names unknown keys, once.

    document_key (str | None): The key of a line, such as "doc_id", that names its document.
    RAISES (DataError): A line is not a JSON object, has a key twice or half a character, or cannot be read reliably.
    """
    ignored: set[str] = set()
    tool = AnnotationTool(path, lambda: (content for _, content in _objects(path)))
    try:
        for where, content in _objects(path):
            record = tool.read(content, where)
            new = {key for key in content if key not in (*KEYS, *TOOL_KEYS, document_key)} - ignored
            if new:
                ignored |= new
                warnings.warn(f"{where}: {', '.join(sorted(new))} is not read. Keys: {', '.join(KEYS)}.", stacklevel=2)
            document = None if document_key is None else _document(content, document_key, where)
            if record is not None:
                yield Record({key: value for key, value in record.items() if key in (*KEYS, PARTIAL)}, where, document)
    finally:
        tool.warn()


def _document(content: dict[str, Any], key: str, where: str) -> str:
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise DataError(
            f"{where}: {key!r} is {value!r}; as the name of the line's document it must be a non-empty string or a "
            f"whole number."
        )
    return str(value)


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The object of each line that is not empty, with its file and line."""
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            content = json.loads(line, object_pairs_hook=_without_doubles)
            if "\\u" in line:
                # Half of a surrogate pair is not a character, and cannot be stored.
                json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{where} has a lone surrogate, which is no character: {error}.") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is not JSON: {error}.") from error
        if not isinstance(content, dict):
            raise DataError(f"{where} is not a JSON object, but {str(content)[:40]!r}.")
        yield where, content


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return content


def read_iob(path: Path) -> Iterator[Record]:
    """Read columns that are separated by tabs, or by blanks as long as no tab was seen: the token first, its tag last.

    Blank lines separate sentences, and lines that begin with -DOCSTART- documents; in a file without these, so do
    several consecutive blank lines.

    RAISES (DataError): A line has no token, no tag, or another number of columns than those before it; or the first
        column counts the tokens, as in CoNLL-U.
    """
    tokens: list[str] = []
    tags: list[str] = []
    first, tabbed, counted = 1, False, True
    width: int | None = None
    documents = _Documents(path.stem)
    for number, line in _lines(path):
        line = line.rstrip("\r\n")
        begins_document = line.startswith("-DOCSTART-")
        if line.strip() and not begins_document:
            where = f"{path}, line {number}"
            tabbed = tabbed or "\t" in line
            # Other white space, such as a no-break space, may be part of a token.
            columns = line.split("\t") if tabbed else re.split(" +", line.strip(" "))
            if len(columns) < 2 or not columns[0] or not columns[-1].strip():
                raise DataError(f"{where}: {line!r} does not have a token and a tag.")
            if "\r" in line:
                raise DataError(f"{where} has line ends of another kind, carriage returns alone. Convert the file.")
            if width not in (None, len(columns)):
                hint = " Comments look like tokens: remove them." if line.startswith("#") else ""
                raise DataError(f"{where}: {line!r} has {len(columns)} columns, and the lines before it {width}.{hint}")
            width = len(columns)
            if not tokens:
                first = number
            tokens.append(columns[0])
            tags.append(columns[-1].strip())
            continue
        if tokens:
            counted = counted and _is_count(tokens, width, f"{path}, line {first}")
            yield Record({"tokens": tokens, "tags": tags}, f"{path}, line {first}", documents.name)
            tokens, tags = [], []
            documents.sentence()
        documents.mark() if begins_document else documents.blank()
    if tokens:
        if counted:
            _is_count(tokens, width, f"{path}, line {first}")
        yield Record({"tokens": tokens, "tags": tags}, f"{path}, line {first}", documents.name)


class _Documents:
    """Determines the document of each sentence in a file.

    A document's name is the file's name and a number, as several files may be read together.

    name (str | None): The current document; None before anything has marked one.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.name: str | None = None
        self._count = 0
        self._marked = False
        self._blanks = 0

    def sentence(self) -> None:
        """Note the end of a sentence."""
        self._blanks = 0

    def mark(self) -> None:
        """Note a line that begins a document. From now on blank lines do not separate documents."""
        self._marked = True
        self._next()

    def blank(self) -> None:
        """Note a blank line. The second after a sentence separates documents."""
        self._blanks += 1
        if self._blanks == 2 and not self._marked:
            self._next()

    def _next(self) -> None:
        self._count += 1
        self.name = f"{self.file} {self._count}"


def _is_count(tokens: list[str], width: int | None, where: str) -> bool:
    """Whether the first column of a sentence may count its tokens, from 0 or 1, like that of each sentence before.

    width (int | None): Number of columns; two are only the token and its tag.
    RAISES (DataError): It certainly does, as several sentences agree.
    """
    # CoNLL-U has ranges for words of several tokens (1-2) and decimals for omitted words (1.1).
    numbers = [int(token) for token in tokens if token.isascii() and token.isdecimal()]
    others = [token for token in tokens if not (token.isascii() and token.isdecimal())]
    if width in (None, 2) or not numbers or not all(re.fullmatch(r"\d+[-.]\d+", token) for token in others):
        return False
    if numbers[0] not in (0, 1) or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return False
    if len(numbers) > 1:
        raise DataError(
            f"{where}: the first column counts the tokens ({', '.join(tokens[:3])} …), as in CoNLL-U. The token must "
            f"be first, and its tag last: remove or move the columns before it, for example with cut -f2,10."
        )
    return True


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with path.open("rb") as file:
            for raw in file:
                number += 1
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number} is not UTF-8. Convert the file, with iconv for example.") from error
