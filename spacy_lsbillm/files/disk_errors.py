"""Errors of disks as Python's own."""

import contextlib
import os
import re
from collections.abc import Iterator

# As the libraries written in Rust put it: safetensors and tokenizers, which have errors of their own.
OS_ERROR = re.compile(r"\(os error (\d+)\)")


@contextlib.contextmanager
def as_os_error() -> Iterator[None]:
    """Within it a library that cannot write fails as Python would, and so is told as such by whoever catches that.

    RAISES (OSError): Something failed with an error number of the system in its message.
    """
    try:
        yield
    except (OSError, ValueError):
        # Those of this package are among them, and say more.
        raise
    except Exception as error:
        found = OS_ERROR.search(str(error))
        if found is None:
            raise
        code = int(found[1])
        raise OSError(code, os.strerror(code)) from error
