"""Pipelines behind HTTP: what comes in at about the same time is annotated together. Nothing of commands in it."""

from .run import serve
from .settings import ServingSettings

__all__ = ["ServingSettings", "serve"]
