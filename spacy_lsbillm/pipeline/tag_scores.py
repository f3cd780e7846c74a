"""The scores of tags: log-probabilities for all tokens, and for the words among them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from spacy.tokens import Doc
from thinc.api import Ops
from thinc.types import Floats2d

from ..alignment import is_word
from ..tagging import Spans


def log_softmax(ops: Ops, scores: list[Floats2d]) -> Floats2d:
    """The log-softmax of the scores of all documents, as one array."""
    xp = ops.xp
    joined = xp.concatenate(scores)
    joined -= joined.max(axis=1, keepdims=True)
    joined -= xp.log(xp.exp(joined).sum(axis=1, keepdims=True))
    return joined


@dataclass(frozen=True)
class WordScores:
    """The scores of words. White space is not a word: it has no tag, and a span continues across it.

    log_probs (ndarray[float32]): The log-probabilities of tags, shape (words, tags).
    places (ndarray[int64]): The number of each word among the tokens of all documents.
    lengths (ndarray[int64]): The number of words in each document.
    """

    log_probs: np.ndarray
    places: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, docs: Sequence[Doc], log_probs: np.ndarray) -> "WordScores":
        """Select the words of documents.

        docs (Sequence[Doc]): The documents, at least one of which is not empty.
        log_probs (ndarray[float32]): Shape (tokens, tags).
        """
        word = [is_word(doc) for doc in docs]
        places = np.flatnonzero(np.concatenate(word))
        return cls(log_probs[places], places, np.array([is_real.sum() for is_real in word]))

    def on_tokens(self, spans: Spans) -> Spans:
        """Convert spans of words to spans of tokens."""
        return replace(spans, start=self.places[spans.start], end=self.places[spans.end - 1] + 1)
