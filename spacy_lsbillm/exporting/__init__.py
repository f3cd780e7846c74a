"""Exporting trained heads as folders that transformers loads by itself."""

from .run import Exported, export

__all__ = ["Exported", "export"]
