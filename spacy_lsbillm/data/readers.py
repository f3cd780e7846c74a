"""Corpus readers for `spacy train`."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Corpus, Example

from ..errors import DataError
from ..values import is_whole
from .choices import choice_records
from .documents import Labels, classes, labels_of, make_doc
from .joining import join_neighbours
from .records import Record, read_jsonl

Reader = Callable[[Language], Iterator[Example]]


@dataclass
class JsonlCorpus:
    """What `spacy-lsbillm.JsonlCorpus.v1` gives: called with a pipeline, it reads the file.

    labels (Labels | None): None until the file has been read once, if they are to be those of the file.
    """

    file: Path
    labels: Labels | None
    spans_key: str | None
    limit: int

    def __call__(self, nlp: Language) -> Iterator[Example]:
        """RAISES (DataError): A line has a class that is not among the labels, or something else does not fit."""
        if self.labels is None:
            self.labels = labels_of(read_jsonl(self.file))
        for record in islice(read_jsonl(self.file), self.limit or None):
            _check_classes(record, self.labels)
            doc = make_doc(nlp, record, self.labels, self.spans_key)
            # As spaCy's own reader does.
            if len(doc):
                yield _example(nlp, doc)


def create_jsonl_corpus_v1(
    path: Path | None, labels: list[str] | None = None, spans_key: str | None = None, limit: int = 0
) -> Reader:
    """Stream a JSONL file: "text" or "tokens", and any of "label", "labels", "tags" and "spans" a line, or what an
    annotation tool has written.

    path (Path): The file.
    labels (list[str] | None): All classes, so that those a line does not name count as 0; null: those that occur in the
        file, which is then read once more in the beginning.
    spans_key (str | None): Put spans into `doc.spans[spans_key]`; null: `doc.ents`.
    limit (int): Read at most so many lines, not counting those that are left out, 0 for all.
    RAISES (DataError): There is no such file, or the limit is below 0. While reading: a line has a class that is not
        among the labels, or something else does not fit.
    """
    file = _file(path)
    _check_limit(limit)
    return JsonlCorpus(file, None if labels is None else Labels(tuple(labels)), spans_key, limit)


def create_multiple_choice_v1(path: Path | None, mode: str = "joint", limit: int = 0) -> Reader:
    """Stream a JSONL file of "question", "choices" and "answer" (an index, from 0) for a `textcat`.

    path (Path): The file.
    mode (str): "joint": one document a question, with all choices behind letters. "each": one a choice.
    limit (int): Read at most so many questions, 0 for all.
    RAISES (DataError): There is no such file or mode, or the limit is below 0.
    """
    file = _file(path)
    _check_limit(limit)
    list(choice_records([], mode))
    return partial(_read_choices, file, mode, limit)


def create_joined_corpus_v1(path: Path | None, min_words: int = 1, max_words: int = 100) -> Reader:
    """Read .spacy files as spaCy does, and join neighbouring documents at random into longer ones: what a model needs
    that learns from sentences and is to read documents. Each reading joins anew.

    path (Path): A .spacy file of sentences in their order, or a folder of such files. Those of different documents
        (`doc.user_data["document"]`, as `convert` sets it) and those with different `doc.cats` are not joined.
    min_words (int), max_words (int): A joined document ends when it has a number of words that is drawn between these,
        and never has more than `max_words` unless a single one has.
    RAISES (DataError): There is no such file or folder, or the numbers are not 1 <= min_words <= max_words.
    """
    if path is None or not Path(path).exists():
        raise DataError(
            f"there is no file or folder {str(path)!r}. Name .spacy files, with --paths.train for example; convert "
            f"makes them."
        )
    if not (is_whole(min_words) and is_whole(max_words) and 1 <= min_words <= max_words):
        raise DataError(
            f"min_words = {min_words!r} and max_words = {max_words!r} are not allowed: they must be whole numbers, "
            f"with 1 <= min_words <= max_words."
        )
    return partial(_read_joined, Corpus(path), min_words, max_words)


def _read_joined(corpus: Reader, min_words: int, max_words: int, nlp: Language) -> Iterator[Example]:
    return join_neighbours(corpus(nlp), min_words, max_words)


def _read_choices(file: Path, mode: str, limit: int, nlp: Language) -> Iterator[Example]:
    records: Iterable[Record] = islice(read_jsonl(file), limit or None)
    for record in choice_records(records, mode):
        yield _example(nlp, make_doc(nlp, record, Labels()))


def _file(path: Path | None) -> Path:
    if path is None or not Path(path).is_file():
        raise DataError(f"there is no file {str(path)!r}. Name a JSONL file, with --paths.train for example.")
    return Path(path)


def _check_limit(limit: int) -> None:
    if limit < 0:
        raise DataError(f"limit = {limit} is not allowed: give a number of lines, or 0 for all.")


def _check_classes(record: Record, labels: Labels) -> None:
    """A class that is not among all classes would be 1 in its own documents and missing, rather than 0, in others: a
    model would learn that it is always there."""
    new = sorted(set(classes(record) or ()) - set(labels.names))
    if new:
        raise DataError(
            f"{record.where} has the class {new[0]!r}, which is not among the labels of the corpus reader: "
            f"{', '.join(labels.names)}. Add it there, or leave out the line."
        )


def _example(nlp: Language, reference: Doc) -> Example:
    """The document to predict has the tokens of the gold one, and nothing else of it."""
    spaces = None if reference.has_unknown_spaces else [bool(token.whitespace_) for token in reference]
    return Example(Doc(nlp.vocab, words=[token.text for token in reference], spaces=spaces), reference)
