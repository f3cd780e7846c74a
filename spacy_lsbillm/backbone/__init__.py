"""The backbone: PyTorch, transformers, peft and bitsandbytes, and no spaCy."""

from .adapter import LoraSettings
from .base import BaseSettings, longest_position
from .fold import Folded, check_fold, may_fold
from .mask import MaskPlan, check_notation, word_for
from .model import Backbone, BackboneSettings, load_backbone
from .storage import RECORD, STORE_BASE, load_stored, read_plan, read_record, save_backbone

__all__ = [
    "RECORD",
    "STORE_BASE",
    "Backbone",
    "BackboneSettings",
    "BaseSettings",
    "Folded",
    "LoraSettings",
    "MaskPlan",
    "check_fold",
    "check_notation",
    "load_backbone",
    "load_stored",
    "longest_position",
    "may_fold",
    "read_plan",
    "read_record",
    "save_backbone",
    "word_for",
]
