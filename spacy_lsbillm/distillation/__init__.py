"""A trained pipeline as the teacher of another one, by way of plain text. Nothing of commands in it."""

from .run import Distilled, distill
from .settings import DistillSettings
from .teacher import Teacher, read_teacher

__all__ = ["DistillSettings", "Distilled", "Teacher", "distill", "read_teacher"]
