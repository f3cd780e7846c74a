"""Joining neighbouring sentences of a corpus to longer documents."""

import random
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from spacy.tokens import Doc
from spacy.training import Example

from ..pipeline.label_sets import ANNOTATED
from .documents import DOCUMENT

# Keys of user_data whose values apply to a whole document.
KEPT = (DOCUMENT, ANNOTATED)


def join_neighbours(examples: Iterable[Example], min_words: int, max_words: int) -> Iterator[Example]:
    """Join neighbours at random, each once and in order.

    A joined document ends when it has the number of words that was drawn for it, between `min_words` and `max_words`,
    or before a neighbour that would exceed `max_words`, is from another document, has other classes or was annotated
    for other labels. The result depends only on one number from Python's random generator, which spaCy seeds.

    examples (Iterable): Sentences or paragraphs. One longer than `max_words` is not changed.
    min_words (int), max_words (int): In tokens of the gold documents.
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
    """Whether two examples agree in everything that applies to a whole document."""
    before, after = one.reference, other.reference
    same = all(before.user_data.get(key) == after.user_data.get(key) for key in KEPT)
    return same and before.cats == after.cats


def join(examples: Sequence[Example]) -> Example:
    """Join consecutive examples.

    Tokens, their attributes, entities and spans are kept, and each example begins a sentence.

    examples (Sequence): Examples with the same classes, which the result gets.
    """
    references = [example.reference for example in examples]
    # spaCy's types for it lack `exclude`.
    joined: Doc = Doc.from_docs(references, exclude=["tensor", "user_data"])  # type: ignore[call-arg]
    joined.cats = dict(references[0].cats)
    joined.user_data.update({key: value for key, value in references[0].user_data.items() if key in KEPT})
    # A parse itself determines where sentences begin.
    if not joined.has_annotation("DEP"):
        starts = np.concatenate([_sentence_starts(doc) for doc in references])
        joined.from_array(["SENT_START"], starts.astype("uint64"))
    return Example(_bare([example.predicted for example in examples]), joined)


def _bare(docs: Sequence[Doc]) -> Doc:
    """The tokens alone, with a blank between documents as in `Doc.from_docs`; without it the joins would be visible."""
    words = [token.text for doc in docs for token in doc]
    spaces: list[bool] = []
    for doc in docs:
        if spaces and not words[len(spaces) - 1].isspace():
            spaces[-1] = True
        spaces += [bool(token.whitespace_) for token in doc]
    return Doc(docs[0].vocab, words=words, spaces=spaces)


def _sentence_starts(doc: Doc) -> np.ndarray:
    """Where sentences begin: 1 for the first token of a sentence and -1 for others, shape (tokens,).

    A document without sentence boundaries is one sentence.
    """
    starts = np.full(len(doc), -1, dtype="int64")
    if len(doc) > 1 and doc.has_annotation("SENT_START"):
        starts = doc.to_array(["SENT_START"]).astype("int64").reshape(-1)
    starts[:1] = 1
    return starts
