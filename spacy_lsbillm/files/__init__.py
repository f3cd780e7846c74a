"""Folders on disk that are whole at any moment, and that tell when they were altered. Nothing of models in it."""

from .folder import put_in_place, replaced_folder, sole_writer
from .seal import SEAL, check_seal, digest, write_seal

__all__ = ["SEAL", "check_seal", "digest", "put_in_place", "replaced_folder", "sole_writer", "write_seal"]
