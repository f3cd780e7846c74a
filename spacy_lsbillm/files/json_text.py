"""JSON from files that nobody vouches for."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """What a text says.

    RAISES (ValueError): It is no JSON, or brackets in it are nested so deep that reading it would need too much of the
        stack (`json` raises a `RecursionError`, which is not among the errors that its callers expect).
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None
