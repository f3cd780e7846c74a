"""Corpus readers for `spacy train`."""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Corpus, Example

from ..errors import DataError
from ..pipeline.gold_spans import name_of
from ..pipeline.label_sets import ANNOTATED, check_label_set
from ..values import is_whole
from .choices import choice_records
from .documents import Labels, all_spans, check_within, classes, labels_of, make_doc
from .joining import join_neighbours
from .records import Record, read_jsonl

Reader = Callable[[Language], Iterator[Example]]
# The value of `replay_annotated` for documents without any spans with new labels.
COMPLETE = "all"


@dataclass
class JsonlCorpus:
    """The reader that `spacy-lsbillm.JsonlCorpus.v1` creates. Called with a pipeline, it reads the file.

    labels (Labels | None): None until the file has been read once, if they are to be those of the file.
    """

    file: Path
    labels: Labels | None
    spans_key: str | None
    limit: int

    def __call__(self, nlp: Language) -> Iterator[Example]:
        """Read the corpus. RAISES (DataError): A line has a class that is not among the labels, or is invalid."""
        if self.labels is None:
            self.labels = labels_of(read_jsonl(self.file))
        for record in islice(read_jsonl(self.file), self.limit or None):
            _check_classes(record, self.labels)
            doc = make_doc(nlp, record, self.labels, self.spans_key)
            # Like spaCy's own reader.
            if len(doc):
                yield _example(nlp, doc)


def create_jsonl_corpus_v1(
    path: Path | None, labels: list[str] | None = None, spans_key: str | None = None, limit: int = 0
) -> Reader:
    """Create a reader of a JSONL file of annotated texts.

    Each line has "text" or "tokens", and any of "label", "labels", "tags", "spans" and "annotated", or the format of an
    annotation tool.

    path (Path): The file.
    labels (list[str] | None): All classes, so that those that a line does not name count as 0; null: those that occur
        in the file, which is then read once more at the start.
    spans_key (str | None): Put spans into `doc.spans[spans_key]`; null: `doc.ents`.
    limit (int): Read at most this many lines, not counting those that are left out; 0 for all.
    RAISES (DataError): There is no such file, or the limit is below 0. While reading: a line has a class that is not
        among the labels, or is invalid.
    """
    file = _file(path)
    _check_limit(limit)
    return JsonlCorpus(file, None if labels is None else Labels(tuple(labels)), spans_key, limit)


def create_multiple_choice_v1(path: Path | None, mode: str = "joint", limit: int = 0) -> Reader:
    """Create a reader of a JSONL file with "question", "choices" and "answer" (an index, from 0), for a `textcat`.

    path (Path): The file.
    mode (str): "joint": one document per question, with all choices marked by letters. "each": one per choice.
    limit (int): Read at most this many questions; 0 for all.
    RAISES (DataError): There is no such file or mode, or the limit is below 0.
    """
    file = _file(path)
    _check_limit(limit)
    list(choice_records([], mode))
    return partial(_read_choices, file, mode, limit)


def create_joined_corpus_v1(path: Path | None, min_words: int = 1, max_words: int = 100) -> Reader:
    """Create a reader of .spacy files that joins neighbouring documents at random into longer ones.

    It is for models that are trained on sentences and used on documents. Each reading joins them differently.

    path (Path): A .spacy file of sentences in order, or a folder of such files. Those of different documents
        (`doc.user_data["document"]`, which `convert` sets), those with different `doc.cats` and those that were
        annotated for different labels are not joined.
    min_words (int), max_words (int): A joined document ends when it has a number of words that is drawn between these,
        and never exceeds `max_words` unless a single sentence does.
    RAISES (DataError): There is no such file or folder, or the numbers are not 1 <= min_words <= max_words.
    """
    files = _spacy_files(path)
    if not (is_whole(min_words) and is_whole(max_words) and 1 <= min_words <= max_words):
        raise DataError(
            f"min_words = {min_words!r} and max_words = {max_words!r} are not allowed: they must be whole numbers, "
            f"with 1 <= min_words <= max_words."
        )
    return partial(_read_joined, Corpus(files), min_words, max_words)


def _read_joined(corpus: Reader, min_words: int, max_words: int, nlp: Language) -> Iterator[Example]:
    return join_neighbours(corpus(nlp), min_words, max_words)


@dataclass
class LabelSetCorpus:
    """The reader that `spacy-lsbillm.LabelSetCorpus.v1` creates. Called with a pipeline, it reads the files.

    corpus (Reader), replay (Reader | None): New and old documents.
    annotated (list[str] | None), replay_annotated (list[str] | str | None): The labels for which each of the two was
        annotated; None: those that occur in it. "all": the old documents are complete, also for new labels.
    """

    corpus: Reader
    annotated: list[str] | None
    replay: Reader | None
    replay_annotated: list[str] | str | None
    replay_docs: int
    replay_times: int
    seed: int

    def __call__(self, nlp: Language) -> Iterator[Example]:
        """Read the corpora. RAISES (DataError): A span has a label for which its document was not annotated."""
        if self.replay is None:
            yield from _marked(self.corpus(nlp), self._labels(nlp))
            return
        old = list(self._old(nlp, self.replay))
        chosen = random.Random(self.seed).sample(range(len(old)), min(self.replay_docs, len(old)))
        repeated = [old[i] for _ in range(self.replay_times) for i in chosen]
        # A stream is not shuffled: the old documents are spread evenly among the new ones.
        new = sum(1 for _ in self.corpus(nlp))
        given = 0
        for number, example in enumerate(_marked(self.corpus(nlp), self._labels(nlp)), start=1):
            yield example
            due = number * len(repeated) // new
            for again in repeated[given:due]:
                # Two of the same may be in one batch, and predictions are written to them.
                yield Example(again.predicted.copy(), again.reference)
            given = due

    def _old(self, nlp: Language, replay: Reader) -> Iterator[Example]:
        """The old documents, with the labels for which they were annotated."""
        if self.replay_annotated != COMPLETE:
            if self.replay_annotated is None:
                self.replay_annotated = _occurring(replay(nlp))
            yield from _marked(replay(nlp), list(self.replay_annotated))
            return
        for example in replay(nlp):
            example.reference.user_data.pop(ANNOTATED, None)
            yield example

    def _labels(self, nlp: Language) -> list[str]:
        if self.annotated is None:
            self.annotated = _occurring(self.corpus(nlp))
        return self.annotated


def create_label_set_corpus_v1(
    path: Path | None,
    annotated: list[str] | None = None,
    replay: Path | None = None,
    replay_annotated: list[str] | str | None = None,
    replay_docs: int = 50,
    replay_times: int = 3,
    seed: int = 0,
) -> Reader:
    """Create a reader of .spacy files that were annotated only for some labels of spans.

    A few documents of another corpus that was annotated for others are mixed in. Use it to teach new labels while
    keeping those learned before. Documents with their own label set (`doc.user_data["annotated"]`, which `convert`
    sets) keep it.

    path (Path): A .spacy file, or a folder of such files.
    annotated (list[str] | None): The labels for which its documents were annotated; null: those that occur in it.
    replay (Path | None): Files of old documents; null: none.
    replay_annotated (list[str] | str | None): The labels for which these were annotated; null: those that occur in
        them, so that a new label is possible wherever they have no span. "all": they are complete, and have no spans
        with new labels but those that are annotated.
    replay_docs (int): The number of old documents to draw; each reading has the same ones.
    replay_times (int): How many times each reading has each of them.
    seed (int): Seed of the draw.
    RAISES (DataError): There are no such files, or a setting is not allowed. While reading: a span has a label for
        which its document was not annotated.
    """
    for name, labels in (("annotated", annotated), ("replay_annotated", replay_annotated)):
        if labels is not None and (name, labels) != ("replay_annotated", COMPLETE):
            or_all = f', which may also be "{COMPLETE}"' if name == "replay_annotated" else ""
            check_label_set(labels, f"the setting {name} of LabelSetCorpus{or_all}")
    for name, number in (("replay_docs", replay_docs), ("replay_times", replay_times)):
        if not (is_whole(number) and number >= 1):
            raise DataError(f"{name} = {number!r} is not allowed: it must be a whole number of at least 1.")
    return LabelSetCorpus(
        Corpus(_spacy_files(path)),
        annotated,
        None if replay is None else Corpus(_spacy_files(replay)),
        replay_annotated,
        replay_docs,
        replay_times,
        seed,
    )


def _occurring(examples: Iterable[Example]) -> list[str]:
    """The labels of spans in documents without their own label set."""
    references = (example.reference for example in examples)
    return sorted({span.label_ for doc in references if ANNOTATED not in doc.user_data for span in all_spans(doc)})


def _marked(examples: Iterable[Example], labels: list[str]) -> Iterator[Example]:
    for example in examples:
        reference = example.reference
        if ANNOTATED not in reference.user_data:
            check_within(reference, labels, name_of(reference))
            reference.user_data[ANNOTATED] = labels
        yield example


def _read_choices(file: Path, mode: str, limit: int, nlp: Language) -> Iterator[Example]:
    records: Iterable[Record] = islice(read_jsonl(file), limit or None)
    for record in choice_records(records, mode):
        yield _example(nlp, make_doc(nlp, record, Labels()))


def _file(path: Path | None) -> Path:
    if path is None or not Path(path).is_file():
        raise DataError(f"there is no file {str(path)!r}. Name a JSONL file, with --paths.train for example.")
    return Path(path)


def _spacy_files(path: Path | None) -> Path:
    if path is None or not Path(path).exists():
        raise DataError(
            f"there is no file or folder {str(path)!r}. Name .spacy files, with --paths.train for example; convert "
            f"creates them."
        )
    return Path(path)


def _check_limit(limit: int) -> None:
    if limit < 0:
        raise DataError(f"limit = {limit} is not allowed: give a number of lines, or 0 for all.")


def _check_classes(record: Record, labels: Labels) -> None:
    """Check that all classes of a record are known.

    An unknown class would be 1 in its own documents and missing, rather than 0, in others: a model would learn that it
    always applies.
    """
    new = sorted(set(classes(record) or ()) - set(labels.names))
    if new:
        raise DataError(
            f"{record.where} has the class {new[0]!r}, which is not among the labels of the corpus reader: "
            f"{', '.join(labels.names)}. Add it there, or leave out the line."
        )


def _example(nlp: Language, reference: Doc) -> Example:
    """An example whose document to predict has only the tokens of the gold one."""
    spaces = None if reference.has_unknown_spaces else [bool(token.whitespace_) for token in reference]
    return Example(Doc(nlp.vocab, words=[token.text for token in reference], spaces=spaces), reference)
