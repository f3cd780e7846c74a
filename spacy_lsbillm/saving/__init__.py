"""Pipelines on disk: saving, rewriting and verifying whole ones."""

from .pipelines import save
from .rewriting import rewrite

__all__ = ["rewrite", "save"]
