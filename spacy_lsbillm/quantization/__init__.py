"""Storing a trained pipeline with eight-bit weights: what it loses and gains, and which layers cause the loss."""

from .compare import Comparison, compare
from .run import Attempt, Quantized, quantize

__all__ = ["Attempt", "Comparison", "Quantized", "compare", "quantize"]
