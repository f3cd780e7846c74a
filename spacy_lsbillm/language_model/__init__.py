"""Text as a causal language model reads it: files of plain text, how well a model predicts them, and a tuned pipeline
read as the language model that it was made from. Only `readings` needs spaCy."""

from .score import Score, score_text
from .text import read_documents, text_files

__all__ = ["Score", "read_documents", "score_text", "text_files"]
