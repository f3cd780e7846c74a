"""The thinc models."""

from .billm_model import ModelSettings, backbone_shim, build_billm_model, fit
from .piece_pooling import PIECE_POOLINGS
from .pooled_textcat import build_pooled_textcat
from .sequence_labeler import build_sequence_labeler
from .shim import PIECES, ShimSettings
from .tok2vec import build_tok2vec
from .vector_batch import VectorBatch

__all__ = [
    "PIECES",
    "PIECE_POOLINGS",
    "ModelSettings",
    "ShimSettings",
    "VectorBatch",
    "backbone_shim",
    "build_billm_model",
    "build_pooled_textcat",
    "build_sequence_labeler",
    "build_tok2vec",
    "fit",
]
