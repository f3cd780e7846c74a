"""The work of each process: load the pipeline once, then annotate one batch after the other."""

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

from ..pipeline.sequence_labeler import SequenceLabeler
from .documents import read_item
from .formats import format_of
from .piping import LOST_STATUS, DeviceLost, error_text, piped
from .sources import Item, Keys, Tokens


@dataclass(frozen=True)
class AnnotatorSettings:
    """What a process needs to know.

    pipeline (str): A folder, or the name of an installed package.
    format (str): Format of the output.
    keys (Keys): Names of the text and the id in the input.
    spans_keys (tuple[str, ...] | None): Groups of `doc.spans` to write; None: all of them.
    max_length (int | None): Maximum characters per document; None: spaCy's limit.
    code (Path | None): A Python file with registered functions.
    threads (int | None): Threads of torch; None: torch's default.
    top_tags (int): Number of tags to write per token, see `AnnotationSettings`.
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
    """A document that was set aside because it failed.

    id (str | int): Its id, or its position if it has none.
    place (str): The file and the number of the document in it.
    error (str): Why it failed.
    """

    id: str | int
    place: str
    error: str


@dataclass(frozen=True)
class Result:
    """The result of a batch.

    packed (bytes): Its documents in order, in the output's format.
    documents (int), words (int): Numbers of documents and words in `packed`.
    failures (list[Failure]): The other documents.
    """

    packed: bytes
    documents: int
    words: int
    failures: list[Failure]


class Annotator:
    """A loaded pipeline that annotates batches.

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
        """Annotate documents. Those that cannot be read, annotated or written are set aside with their error."""
        # New words are removed from the vocabulary afterwards: in a large corpus it would grow without end.
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
                failures.append(Failure(id_, item.place, error_text(error)))
        return Result(self._format.pack(encoded), len(encoded), words, failures)

    def _outcomes(self, items: Sequence[Item]) -> list[tuple[str | int, Doc | Exception]]:
        """The id of each item, with its annotated document or the error."""
        read = [self._read(item) for item in items]
        texts = [(content, id_) for id_, content in read if not isinstance(content, Exception)]
        try:
            annotated = piped(self._nlp, texts)
        except DeviceLost:
            # The process that started this one would consider it dead.
            traceback.print_exc()
            os._exit(LOST_STATUS)
        if self._settings.top_tags:
            annotated = [_with_short_scores(one) if isinstance(one, Doc) else one for one in annotated]
        left = iter(annotated)
        return [(id_, content if isinstance(content, Exception) else next(left)) for id_, content in read]

    def _read(self, item: Item) -> tuple[str | int, str | Tokens | Exception]:
        try:
            text, id_ = read_item(item, self._settings.keys)
        except Exception as error:
            return item.place, error
        return id_, text


def _with_short_scores(doc: Doc) -> Doc:
    """Round the scores of classes to half precision, which takes two bytes each."""
    doc.cats = {name: float(np.float16(score)) for name, score in doc.cats.items()}
    return doc
