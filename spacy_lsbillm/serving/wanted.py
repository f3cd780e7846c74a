"""Reading a request from its body."""

from dataclasses import dataclass
from typing import Any

from ..errors import in_short
from ..files import parse_json
from .refusal import BAD_JSON, NOT_ALLOWED, TOO_LARGE, Refused

TEXTS, PIPELINE, MASK = KEYS = ("texts", "pipeline", "mask")
# The schema of a request in the description of the service, at /openapi.json.
SCHEMA = {
    "type": "object",
    "required": [TEXTS],
    "additionalProperties": False,
    "properties": {
        TEXTS: {"type": "array", "items": {"type": "string"}},
        PIPELINE: {"type": ["string", "null"], "description": "One of /v1/pipelines; by default the first"},
        MASK: {"type": ["string", "null"], "description": "Layers to unmask; by default those of the pipeline"},
    },
}


@dataclass(frozen=True)
class Wanted:
    """A request to annotate texts with a pipeline.

    texts (list[str]): Any number of texts.
    pipeline (str | None): The pipeline's name; None: the first.
    mask (str | None): In mask notation; None: the pipeline's own.
    """

    texts: list[str]
    pipeline: str | None = None
    mask: str | None = None


def read_wanted(body: bytes, max_documents: int) -> Wanted:
    """Read a request.

    RAISES (Refused): The body is not JSON, or not a valid request.
    """
    try:
        content = parse_json(body)
    except ValueError as error:
        raise Refused(BAD_JSON, f"the body is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise Refused(NOT_ALLOWED, f"the body is {_kind(content)}; it must be an object with {TEXTS!r}")
    unknown = sorted(set(content) - set(KEYS))
    if unknown:
        raise Refused(NOT_ALLOWED, f"the body has {in_short(unknown)}; allowed are: {', '.join(KEYS)}")
    texts = content.get(TEXTS)
    if not isinstance(texts, list):
        had = _kind(texts) if TEXTS in content else "missing"
        raise Refused(NOT_ALLOWED, f"{TEXTS!r} is {had}; it must be a list of strings")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise Refused(NOT_ALLOWED, f"{TEXTS}[{place}] is {_kind(text)}; it must be a string")
    for key in (PIPELINE, MASK):
        if not isinstance(content.get(key), str | None):
            raise Refused(NOT_ALLOWED, f"{key!r} is {_kind(content[key])}; it must be a string or null")
    if len(texts) > max_documents:
        raise Refused(
            TOO_LARGE, f"{len(texts):,} texts are more than the {max_documents:,} allowed per request: divide them"
        )
    return Wanted(texts, content.get(PIPELINE), content.get(MASK))


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
