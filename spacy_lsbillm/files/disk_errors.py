"""Turning libraries' errors of reading and writing into `OSError`."""

import contextlib
import os
import re
from collections.abc import Iterator

# How libraries written in Rust, safetensors and tokenizers, report an error number in their own errors.
OS_ERROR = re.compile(r"\(os error (\d+)\)")


@contextlib.contextmanager
def as_os_error() -> Iterator[None]:
    """Context in which a library that cannot write raises an `OSError`, as Python would, so that callers can handle it.

    RAISES (OSError): An error with an error number of the system in its message was raised.
    """
    try:
        yield
    except (OSError, ValueError):
        # Errors of this package can be of these types, too, and say more.
        raise
    except Exception as error:
        match = OS_ERROR.search(str(error))
        if match is None:
            raise
        code = int(match[1])
        raise OSError(code, os.strerror(code)) from error
