"""Serving pipelines over HTTP: texts that arrive at about the same time are annotated together.

Independent of the command line.
"""

from .run import serve
from .settings import ServingSettings

__all__ = ["ServingSettings", "serve"]
