"""Pre-training of small bases from plain text, without spaCy: a decoder, or an encoder of the same shape."""

from .run import pretrain
from .settings import PretrainingSettings

__all__ = ["PretrainingSettings", "pretrain"]
