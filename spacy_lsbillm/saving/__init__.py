"""Pipelines on disk: saving, rewriting and verifying them as a whole."""

from .pipelines import save
from .rewriting import rewrite

__all__ = ["rewrite", "save"]
