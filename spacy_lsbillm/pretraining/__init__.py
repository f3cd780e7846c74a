"""Pre-training of small bases from plain text, without spaCy: a decoder, or an encoder of the same shape."""

from .run import pretrain
from .score import Score, score_text
from .settings import PretrainingSettings

__all__ = ["PretrainingSettings", "Score", "pretrain", "score_text"]
