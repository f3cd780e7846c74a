"""The backbone: PyTorch, transformers, peft and bitsandbytes, and no spaCy."""

from .adapter import LoraSettings
from .base import BaseSettings
from .mask import MaskPlan, check_notation, word_for
from .model import Backbone, load_backbone

__all__ = ["Backbone", "BaseSettings", "LoraSettings", "MaskPlan", "check_notation", "load_backbone", "word_for"]
