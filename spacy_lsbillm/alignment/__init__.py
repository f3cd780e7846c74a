"""Alignment and batching: from spaCy's tokens to batches of word pieces and back."""

from .batches import Batch, MicroBatch, make_batch
from .context import ContextSpans, SpanGetter, context_of
from .pieces import Pieces, SpecialPieces, align, cut_pieces
from .white_space import check_white_space, is_word, trained_white_space
from .windows import Windows, cut_windows

__all__ = [
    "Batch",
    "ContextSpans",
    "MicroBatch",
    "Pieces",
    "SpanGetter",
    "SpecialPieces",
    "Windows",
    "align",
    "check_white_space",
    "context_of",
    "cut_pieces",
    "cut_windows",
    "is_word",
    "make_batch",
    "trained_white_space",
]
