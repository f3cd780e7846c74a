"""Reading annotated text in common file formats as spaCy documents."""

from .choices import MODES, choice_records
from .documents import Labels, labels_of, make_doc
from .records import Record, read_records

__all__ = ["MODES", "Labels", "Record", "choice_records", "labels_of", "make_doc", "read_records"]
