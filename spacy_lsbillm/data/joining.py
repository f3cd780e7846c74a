"""Neighbouring sentences of a corpus as longer documents."""

import random
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from spacy.tokens import Doc
from spacy.training import Example

from ..pipeline.label_sets import ANNOTATED
from .documents import DOCUMENT

# What is said of a whole document in its user_data.
KEPT = (DOCUMENT, ANNOTATED)


def join_neighbours(examples: Iterable[Example], min_words: int, max_words: int) -> Iterator[Example]:
    """Join neighbours at random, each once and in their order. A joined document ends when it has as many words as were
    drawn for it, between `min_words` and `max_words`, or before a neighbour that would make it longer than `max_words`,
    is of another document, has other classes or was annotated for other labels. All follows from one number of Python's
    random generator, which spaCy seeds.

    examples (Iterable): Sentences or paragraphs. A longer one than `max_words` stays as it is.
    min_words (int), max_words (int): Tokens of the gold documents.
    """
    draw = random.Random(random.getrandbits(64))
    waiting: list[Example] = []
    length = 0
    wanted = draw.randint(min_words, max_words)
    for example in examples:
        size = len(example.reference)
        if waiting and (length >= wanted or length + size > max_words or not _go_together(waiting[-1], example)):
            yield join(waiting)
            waiting, length = [], 0
            wanted = draw.randint(min_words, max_words)
        waiting.append(example)
        length += size
    if waiting:
        yield join(waiting)


def _go_together(one: Example, other: Example) -> bool:
    """What is said of a whole document must be the same of both."""
    before, after = one.reference, other.reference
    same = all(before.user_data.get(key) == after.user_data.get(key) for key in KEPT)
    return same and before.cats == after.cats


def join(examples: Sequence[Example]) -> Example:
    """Examples in a row as one. Tokens, entities, spans and whatever tokens have stay as they are, and each begins a
    sentence.

    examples (Sequence): With the same classes, which are those of the result.
    """
    references = [example.reference for example in examples]
    # The types that spaCy gives for it lack `exclude`.
    joined: Doc = Doc.from_docs(references, exclude=["tensor", "user_data"])  # type: ignore[call-arg]
    joined.cats = dict(references[0].cats)
    joined.user_data.update({key: value for key, value in references[0].user_data.items() if key in KEPT})
    # A parse says itself where sentences begin.
    if not joined.has_annotation("DEP"):
        starts = np.concatenate([_sentence_starts(doc) for doc in references])
        joined.from_array(["SENT_START"], starts.astype("uint64"))
    return Example(_bare([example.predicted for example in examples]), joined)


def _bare(docs: Sequence[Doc]) -> Doc:
    """The tokens alone, with a blank between documents as `Doc.from_docs` has it; that would say where each began."""
    words = [token.text for doc in docs for token in doc]
    spaces: list[bool] = []
    for doc in docs:
        if spaces and not words[len(spaces) - 1].isspace():
            spaces[-1] = True
        spaces += [bool(token.whitespace_) for token in doc]
    return Doc(docs[0].vocab, words=words, spaces=spaces)


def _sentence_starts(doc: Doc) -> np.ndarray:
    """1 for a token that begins a sentence and -1 for others, shape (tokens,); as the document has it, else it is one
    sentence."""
    starts = np.full(len(doc), -1, dtype="int64")
    if len(doc) > 1 and doc.has_annotation("SENT_START"):
        starts = doc.to_array(["SENT_START"]).astype("int64").reshape(-1)
    starts[:1] = 1
    return starts
