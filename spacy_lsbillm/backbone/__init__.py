"""The backbone: PyTorch, transformers, peft and bitsandbytes, and no spaCy."""

from .adapter import ADAPTER_DTYPES, LoraSettings
from .base import BaseSettings
from .base_config import longest_position
from .fingerprint import fingerprint, full_digest
from .fold import Folded, check_fold, may_fold, room_to_fold
from .loading import load_backbone, load_base
from .mask import MaskPlan, check_notation, unmasks, word_for
from .model import Backbone, BackboneSettings
from .record import RECORD, changes_of, plan_of, read_record, recorded_cutting
from .storage import (
    COPY,
    INT8,
    MERGED,
    REFERENCE,
    STORE_BASE,
    STORED_AS,
    StoredParts,
    convert_stored,
    load_stored,
    save_backbone,
    stored_parts,
)
from .whereabouts import find_base

__all__ = [
    "ADAPTER_DTYPES",
    "COPY",
    "INT8",
    "MERGED",
    "RECORD",
    "REFERENCE",
    "STORED_AS",
    "STORE_BASE",
    "Backbone",
    "BackboneSettings",
    "BaseSettings",
    "Folded",
    "LoraSettings",
    "MaskPlan",
    "StoredParts",
    "changes_of",
    "check_fold",
    "check_notation",
    "convert_stored",
    "find_base",
    "fingerprint",
    "full_digest",
    "load_backbone",
    "load_base",
    "load_stored",
    "longest_position",
    "may_fold",
    "plan_of",
    "read_record",
    "recorded_cutting",
    "room_to_fold",
    "save_backbone",
    "stored_parts",
    "unmasks",
    "word_for",
]
