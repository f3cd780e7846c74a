"""Pipelines on disk: saving, rewriting and verifying whole ones."""

from .pipelines import rewrite, save

__all__ = ["rewrite", "save"]
