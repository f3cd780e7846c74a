"""A batch of vectors in the form that the listeners of spacy-transformers accept."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from spacy_transformers.data_classes import FullTransformerBatch, TransformerData, WordpieceBatch
from thinc.api import get_array_module, xp2torch
from thinc.types import Floats2d, Ragged
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.utils import ModelOutput

from ..alignment import Batch
from .token_vectors import TokenVectors


@dataclass
class VectorBatch(FullTransformerBatch):
    """The vectors of documents, one row per document whatever its number of windows.

    `doc_data[i]` has the vectors of document i as a float32 array of shape (1, tokens or pieces, width), and the
    alignment of tokens with them.

    rows_per_doc (list[int]): The number of vectors of each document that is not empty.
    """

    rows_per_doc: list[int] = field(default_factory=list)

    @classmethod
    def of_tokens(cls, vectors: Floats2d, batch: Batch) -> "VectorBatch":
        """Make a batch with one vector per token, aligned one to one; a token without pieces has alignment length 0.

        vectors (Floats2d): The vectors in the order of tokens, shape (tokens, width).
        """
        has_pieces = batch.pieces_per_token > 0
        places, lengths = np.arange(len(vectors), dtype="i"), has_pieces.astype("i")
        no_ids, no_mask = np.zeros((1, len(vectors)), dtype="i"), np.ones((1, len(vectors)), dtype="bool")
        every = bool(has_pieces.all())
        doc_data: list[TransformerData] = []
        for start, end in _parts(batch.tokens_per_doc):
            if start == end:
                doc_data.append(TokenVectors.empty())
                continue
            size = end - start
            # As of WordpieceBatch.zeros, by views of one array.
            none = WordpieceBatch([[""] * size], no_ids[:, :size], no_mask[:, :size], [size], None)
            filled = places[:size] if every else np.flatnonzero(has_pieces[start:end]).astype("i")
            output = ModelOutput(last_hidden_state=vectors[None, start:end])
            doc_data.append(TokenVectors(none, output, Ragged(filled, lengths[start:end])))
        return cls._make(vectors, _one_to_one(has_pieces), doc_data, [n for n in batch.tokens_per_doc if n])

    @classmethod
    def of_pieces(cls, vectors: Floats2d, batch: Batch, tokenizer: PreTrainedTokenizerFast) -> "VectorBatch":
        """Make a batch with one vector per piece and the pieces themselves, as spacy-transformers does.

        vectors (Floats2d): The vectors in the order of pieces, shape (pieces, width).
        """
        doc_data = []
        pairs = np.concatenate([[0], np.cumsum(batch.pieces_per_token)])
        for (start, end), (first, last) in zip(_parts(batch.tokens_per_doc), _parts(batch.pieces_per_doc), strict=True):
            if start == end:
                doc_data.append(TransformerData.empty())
                continue
            numbers = batch.of_piece[pairs[start] : pairs[end]] - first
            align = Ragged(numbers.astype("i"), batch.pieces_per_token[start:end].astype("i"))
            rows = vectors[first:last]
            if first == last:
                # A listener treats a document without vectors as an empty one.
                rows = get_array_module(vectors).zeros((1, vectors.shape[1]), dtype=vectors.dtype)
            doc_data.append(_doc_data(rows, _wordpieces(batch.ids[first:last], tokenizer), align))
        align = Ragged(batch.of_piece.astype("i"), batch.pieces_per_token.astype("i"))
        rows_per_doc = [
            pieces for pieces, tokens in zip(batch.pieces_per_doc, batch.tokens_per_doc, strict=True) if tokens
        ]
        return cls._make(vectors, align, doc_data, rows_per_doc)

    @classmethod
    def _make(
        cls, vectors: Floats2d, align: Ragged, doc_data: list[TransformerData], rows_per_doc: list[int]
    ) -> "VectorBatch":
        made = cls(
            spans=[[] for _ in doc_data],
            wordpieces=WordpieceBatch.empty(),
            model_output=ModelOutput(last_hidden_state=vectors),
            align=align,
            rows_per_doc=rows_per_doc,
        )
        made.cached_doc_data = doc_data
        return made

    def gradient(self, arrays: list[list[Any]]) -> Tensor:
        """Concatenate the gradients of documents. Empty documents have none and are left out.

        arrays (list): One array of shape (1, tokens or pieces, width) per document that is not empty.
        RETURNS (Tensor): Shape (tokens or pieces, width).
        """
        xp = get_array_module(arrays[0][0])
        return xp2torch(
            xp.concatenate([array[0, :rows] for (array,), rows in zip(arrays, self.rows_per_doc, strict=True)])
        )

    def with_gradient(self, gradient: Tensor) -> FullTransformerBatch:
        """Wrap a gradient in the form that the model's backward pass accepts.

        gradient (Tensor): Shape (tokens or pieces, width).
        """
        return FullTransformerBatch(
            spans=self.spans,
            wordpieces=self.wordpieces,
            model_output=ModelOutput(last_hidden_state=gradient),
            align=self.align,
        )

    def unsplit_by_doc(self, arrays: list[list[Any]]) -> FullTransformerBatch:
        """Concatenate and wrap the gradients of documents, under the name that spacy-transformers uses."""
        return self.with_gradient(self.gradient(arrays))


def _parts(sizes: list[int]) -> Iterator[tuple[int, int]]:
    ends = np.cumsum(sizes).tolist()
    return ((end - size, end) for size, end in zip(sizes, ends, strict=True))


def _one_to_one(has_pieces: np.ndarray) -> Ragged:
    return Ragged(np.flatnonzero(has_pieces).astype("i"), has_pieces.astype("i"))


def _wordpieces(ids: np.ndarray, tokenizer: PreTrainedTokenizerFast) -> WordpieceBatch:
    return WordpieceBatch(
        strings=[tokenizer.convert_ids_to_tokens(ids.tolist())],
        input_ids=ids[None].astype("i"),
        attention_mask=np.ones((1, len(ids)), dtype="f"),
        lengths=[len(ids)],
        token_type_ids=None,
    )


def _doc_data(vectors: Floats2d, wordpieces: WordpieceBatch, align: Ragged) -> TransformerData:
    return TransformerData(
        wordpieces=wordpieces, model_output=ModelOutput(last_hidden_state=vectors[None]), align=align
    )
