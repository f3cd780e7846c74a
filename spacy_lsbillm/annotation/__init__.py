"""A corpus through a pipeline, on many processes: each document once, whatever is killed on the way. Nothing of
commands in it."""

from .formats import FORMATS
from .run import Annotated, annotate
from .settings import AnnotationSettings, RunSettings
from .sources import SUFFIXES, Keys

__all__ = ["FORMATS", "SUFFIXES", "Annotated", "AnnotationSettings", "Keys", "RunSettings", "annotate"]
