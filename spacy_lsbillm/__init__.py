"""Bidirectional, label-supervised LLMs as spaCy pipelines."""

from .about import __version__

__all__ = ["__version__"]
