"""What each process does: load the pipeline once, then annotate one batch after the other."""

import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import spacy
import torch
from spacy.tokens import Doc
from spacy.util import import_file

from ..errors import DataError
from ..pipeline.sequence_labeler import SequenceLabeler
from .documents import ID, make_doc, read_item
from .formats import format_of
from .sources import Item, Keys

# In the message of an error after which a GPU cannot be used in the same process, and how such a process ends.
DEVICE_LOST, LOST_STATUS = "CUDA error", 70
# Characters of an error that are kept.
MESSAGE_LENGTH = 1000


@dataclass(frozen=True)
class AnnotatorSettings:
    """What a process needs to know.

    pipeline (str): A folder, or the name of an installed package.
    format (str): Of the output.
    keys (Keys): Where the input has texts and ids.
    spans_keys (tuple[str, ...] | None): Groups of `doc.spans` that are written; None: all of them.
    max_length (int | None): Characters that a document may have; None: spaCy's limit.
    code (Path | None): A Python file with registered functions.
    threads (int | None): Of torch; None: as it decides itself.
    top_tags (int): Tags of a token that are told, see `AnnotationSettings`.
    """

    pipeline: str
    format: str
    keys: Keys
    spans_keys: tuple[str, ...] | None
    max_length: int | None
    code: Path | None
    threads: int | None
    top_tags: int = 0


@dataclass(frozen=True)
class Failure:
    """A document that was set aside.

    id (str | int): The one that it was given, or its place.
    place (str): The file and the number in it.
    error (str): Why.
    """

    id: str | int
    place: str
    error: str


@dataclass(frozen=True)
class Result:
    """What has become of a batch.

    packed (bytes): Its documents in their order, in the output's format.
    documents (int), words (int): Written there.
    failures (list[Failure]): The others.
    """

    packed: bytes
    documents: int
    words: int
    failures: list[Failure]


class Annotator:
    """A loaded pipeline.

    gpu (int | None): The number of the GPU; None: the CPU.
    RAISES (Exception): The pipeline cannot be loaded, or there is no such GPU.
    """

    def __init__(self, settings: AnnotatorSettings, gpu: int | None = None) -> None:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        if gpu is not None:
            spacy.require_gpu(gpu)
        if settings.code is not None:
            import_file("python_code", settings.code)
        self._settings = settings
        self._format = format_of(settings.format)
        self._nlp = spacy.load(settings.pipeline)
        if settings.max_length is not None:
            self._nlp.max_length = settings.max_length
        for _, pipe in self._nlp.pipeline:
            if isinstance(pipe, SequenceLabeler):
                pipe.top_tags = settings.top_tags

    def annotate(self, items: Sequence[Item]) -> Result:
        """Annotate documents. What cannot be read, annotated or written is set aside with its error."""
        # What the vocabulary learns from them is forgotten again: in a large corpus there is always a new word.
        with self._nlp.memory_zone():
            return self._result(items)

    def _result(self, items: Sequence[Item]) -> Result:
        encoded: list[Any] = []
        failures: list[Failure] = []
        words = 0
        for item, (id_, outcome) in zip(items, self._outcomes(items), strict=True):
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                encoded.append(self._format.encode(outcome, self._settings.spans_keys))
                words += len(outcome)
            except Exception as error:
                failures.append(Failure(id_, item.place, _told(error)))
        return Result(self._format.pack(encoded), len(encoded), words, failures)

    def _outcomes(self, items: Sequence[Item]) -> list[tuple[str | int, Doc | Exception]]:
        """The id of each item, and its document after the pipeline or why there is none. A document that fails takes
        the others with it at first: halves are tried, with documents that are made anew."""
        made = [self._made(item) for item in items]
        docs = [doc for _, doc in made if isinstance(doc, Doc)]
        try:
            annotated = iter(self._piped(docs))
        except Exception as error:
            if DEVICE_LOST in str(error):
                # Nothing works in this process any more. Whoever has started it takes it for dead.
                traceback.print_exc()
                os._exit(LOST_STATUS)
            if len(items) == 1:
                return [(made[0][0], error)]
            half = len(items) // 2
            return [*self._outcomes(items[:half]), *self._outcomes(items[half:])]
        return [(id_, next(annotated) if isinstance(outcome, Doc) else outcome) for id_, outcome in made]

    def _made(self, item: Item) -> tuple[str | int, Doc | Exception]:
        id_: str | int = item.place
        try:
            text, id_ = read_item(item, self._settings.keys)
            return id_, make_doc(self._nlp, text, id_)
        except Exception as error:
            return id_, error

    def _piped(self, docs: list[Doc]) -> list[Doc]:
        annotated = list(self._nlp.pipe(docs))
        if len(annotated) != len(docs):
            raise DataError(f"the pipeline has made {len(annotated)} documents of {len(docs)}")
        for before, after in zip(docs, annotated, strict=True):
            # A component may give another document than the one it got.
            after.user_data[ID] = before.user_data[ID]
            if self._settings.top_tags:
                after.cats = {name: float(np.float16(score)) for name, score in after.cats.items()}
        return annotated


def _told(error: Exception) -> str:
    said = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
    return said[:MESSAGE_LENGTH]
