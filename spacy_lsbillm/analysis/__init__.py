"""How much labels depend on the context to their right: measured in parses, and in the predictions of a model."""

from .dependency import RightSide, right_side
from .right_context import ContextChange, right_context

__all__ = ["ContextChange", "RightSide", "right_context", "right_side"]
