"""Parsing JSON from untrusted files."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Parse a JSON text.

    RAISES (ValueError): It is not JSON, or its brackets are nested so deep that parsing would need too much of the
        stack (`json` raises a `RecursionError`, which callers do not expect).
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None
