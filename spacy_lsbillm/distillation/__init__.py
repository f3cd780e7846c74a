"""Distillation: training a pipeline on plain text that another trained pipeline, the teacher, annotates.

Independent of the command line.
"""

from .run import Distilled, distill
from .settings import DistillSettings
from .teacher import Teacher, read_teacher

__all__ = ["DistillSettings", "Distilled", "Teacher", "distill", "read_teacher"]
