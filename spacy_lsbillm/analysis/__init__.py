"""How much labels lean on what stands to their right: from parses, and from a model."""

from .dependency import RightSide, right_side
from .right_context import ContextChange, right_context

__all__ = ["ContextChange", "RightSide", "right_context", "right_side"]
