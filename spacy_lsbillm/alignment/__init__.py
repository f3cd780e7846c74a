"""Alignment and batching: from spaCy's tokens to batches of word pieces and back."""

from .batches import Batch, MicroBatch, make_batch
from .pieces import Pieces, SpecialPieces, align, cut_pieces
from .white_space import check_white_space, is_word, trained_white_space
from .windows import Windows, cut_windows

__all__ = [
    "Batch",
    "MicroBatch",
    "Pieces",
    "SpecialPieces",
    "Windows",
    "align",
    "check_white_space",
    "cut_pieces",
    "cut_windows",
    "is_word",
    "make_batch",
    "trained_white_space",
]
