"""How well a causal language model predicts plain text, and which one a tuned pipeline was made from.

Only `readings` needs spaCy.
"""

from .score import Score, score_text
from .text import read_documents, text_files

__all__ = ["Score", "read_documents", "score_text", "text_files"]
