"""The thinc models: the shim around the backbone, its listeners, and the heads that use token vectors."""

from .billm_model import MAX_BATCH_ITEMS, ModelSettings, backbone_shim, build_billm_model, fit_to_base, shims_in
from .class_calibration import ClassCalibration, calibration_of, set_calibration, uncalibrated
from .class_loss import CROSS_ENTROPY, LossSettings, softmax_loss
from .left_out import ONLY_LABELLED
from .listening import guard, listeners_in
from .piece_pooling import PIECE_POOLINGS
from .pooled_textcat import build_pooled_textcat, is_pooled_textcat, teach_textcat
from .sequence_labeler import build_sequence_labeler, grow_labeler, learn_transitions, transitions_of
from .shim import BackboneShim
from .shim_settings import ShimSettings
from .soft_loss import soft_loss
from .span_finder import build_span_finder
from .span_labeler import build_span_labeler, score_blocks
from .state_pooling import PIECES
from .textcat_reduce import build_textcat_reduce
from .tok2vec import build_tok2vec
from .token_vectors import skip_pooling
from .vector_batch import VectorBatch

__all__ = [
    "CROSS_ENTROPY",
    "MAX_BATCH_ITEMS",
    "ONLY_LABELLED",
    "PIECES",
    "PIECE_POOLINGS",
    "BackboneShim",
    "ClassCalibration",
    "LossSettings",
    "ModelSettings",
    "ShimSettings",
    "VectorBatch",
    "backbone_shim",
    "build_billm_model",
    "build_pooled_textcat",
    "build_sequence_labeler",
    "build_span_finder",
    "build_span_labeler",
    "build_textcat_reduce",
    "build_tok2vec",
    "calibration_of",
    "fit_to_base",
    "grow_labeler",
    "guard",
    "is_pooled_textcat",
    "learn_transitions",
    "listeners_in",
    "score_blocks",
    "set_calibration",
    "shims_in",
    "skip_pooling",
    "soft_loss",
    "softmax_loss",
    "teach_textcat",
    "transitions_of",
    "uncalibrated",
]
