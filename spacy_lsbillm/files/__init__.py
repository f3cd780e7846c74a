"""Files and folders that are complete at any moment, and that show when they were altered. Independent of models."""

from .content import content_of
from .disk_errors import as_os_error
from .folder import put_in_place, replaced_folder, sole_writer
from .json_text import parse_json
from .message import files_in, message_of, unpack
from .plain import endless
from .seal import SEAL, check_seal, digest, write_seal
from .shared_work import read_or_make
from .temporary import TemporaryFolder
from .whole import PARTIAL, new_folder, replaced_file, write_text

__all__ = [
    "PARTIAL",
    "SEAL",
    "TemporaryFolder",
    "as_os_error",
    "check_seal",
    "content_of",
    "digest",
    "endless",
    "files_in",
    "message_of",
    "new_folder",
    "parse_json",
    "put_in_place",
    "read_or_make",
    "replaced_file",
    "replaced_folder",
    "sole_writer",
    "unpack",
    "write_seal",
    "write_text",
]
