"""A batch of token vectors in the form that spacy-transformers' listeners take."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from spacy_transformers.data_classes import FullTransformerBatch, TransformerData, WordpieceBatch
from thinc.api import get_array_module, xp2torch
from thinc.types import Floats2d, Ragged
from transformers.file_utils import ModelOutput


@dataclass
class TokenBatch(FullTransformerBatch):
    """One vector a token, where spacy-transformers has one a piece: pieces are already pooled, where the device is.

    `doc_data[i]` holds the states of document i as an array of shape (1, tokens, width) in float32, aligned one to one;
    a token without pieces has alignment length 0.
    """

    @classmethod
    def from_vectors(cls, vectors: Floats2d, has_pieces: np.ndarray, tokens_a_doc: list[int]) -> "TokenBatch":
        """vectors (Floats2d): Token after token, shape (tokens, width).
        has_pieces (ndarray): Shape (tokens,), boolean.
        tokens_a_doc (list[int]): One entry a document.
        """
        batch = cls(
            spans=[[] for _ in tokens_a_doc],
            wordpieces=WordpieceBatch.empty(),
            model_output=ModelOutput(last_hidden_state=vectors),
            align=_alignment(has_pieces),
        )
        ends = np.cumsum(tokens_a_doc).tolist()
        batch.cached_doc_data = [
            _doc_data(vectors[end - size : end], has_pieces[end - size : end]) if size else TransformerData.empty()
            for size, end in zip(tokens_a_doc, ends, strict=True)
        ]
        return batch

    def unsplit_by_doc(self, arrays: list[list[Any]]) -> FullTransformerBatch:
        """Put gradients back together. Empty documents have none and are left out.

        arrays (list): For each document that is not empty, one array of shape (1, tokens, width).
        RETURNS (FullTransformerBatch): With one tensor of shape (tokens, width) as its model output.
        """
        xp = get_array_module(arrays[0][0])
        joined = xp.concatenate([array for (array,) in arrays], axis=1)[0]
        return FullTransformerBatch(
            spans=self.spans,
            wordpieces=self.wordpieces,
            model_output=ModelOutput(last_hidden_state=xp2torch(joined)),
            align=self.align,
        )


def _alignment(has_pieces: np.ndarray) -> Ragged:
    return Ragged(np.flatnonzero(has_pieces).astype("i"), has_pieces.astype("i"))


def _doc_data(vectors: Floats2d, has_pieces: np.ndarray) -> TransformerData:
    return TransformerData(
        wordpieces=WordpieceBatch.zeros([len(has_pieces)]),
        model_output=ModelOutput(last_hidden_state=vectors[None]),
        align=_alignment(has_pieces),
    )
