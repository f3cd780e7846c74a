"""The backbone: PyTorch, transformers, peft and bitsandbytes, and no spaCy."""

from .adapter import ADAPTER_DTYPES, LoraSettings
from .base import BaseSettings, longest_position
from .fingerprint import fingerprint, full_digest
from .mask import MaskPlan, check_notation, word_for
from .model import Backbone, BackboneSettings, load_backbone
from .storage import (
    RECORD,
    STORE_BASE,
    convert_stored,
    find_base,
    load_stored,
    plan_of,
    read_record,
    save_backbone,
)

__all__ = [
    "ADAPTER_DTYPES",
    "RECORD",
    "STORE_BASE",
    "Backbone",
    "BackboneSettings",
    "BaseSettings",
    "LoraSettings",
    "MaskPlan",
    "check_notation",
    "convert_stored",
    "find_base",
    "fingerprint",
    "full_digest",
    "load_backbone",
    "load_stored",
    "longest_position",
    "plan_of",
    "read_record",
    "save_backbone",
    "word_for",
]
