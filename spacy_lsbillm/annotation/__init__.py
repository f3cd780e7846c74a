"""Annotating a corpus with a pipeline on many processes: each document exactly once, whatever is killed on the way.

Independent of the command line.
"""

from .formats import FORMATS
from .run import Annotated, annotate
from .settings import AnnotationSettings, RunSettings
from .sources import SUFFIXES, Keys

__all__ = ["FORMATS", "SUFFIXES", "Annotated", "AnnotationSettings", "Keys", "RunSettings", "annotate"]
