"""Tags that stand for spans, and the best well-formed sequence of them. No spaCy in it."""

from .decode import best_tags
from .scheme import SCHEMES, Scheme, Spans

__all__ = ["SCHEMES", "Scheme", "Spans", "best_tags"]
