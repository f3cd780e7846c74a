"""A trained pipeline with its weights in eight bits: what it loses, what it gains, and which layers are to blame."""

from .compare import Comparison, compare
from .run import Attempt, Quantized, quantize

__all__ = ["Attempt", "Comparison", "Quantized", "compare", "quantize"]
