"""Further training of an existing base on plain text, with its layers unmasked. Imports no spaCy."""

from .run import AdaptationPlaces, adapt
from .settings import AdaptationSettings

__all__ = ["AdaptationPlaces", "AdaptationSettings", "adapt"]
