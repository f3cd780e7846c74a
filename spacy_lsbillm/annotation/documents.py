"""Turning an item of an input file into a spaCy document that is ready for a pipeline."""

from typing import Any

from spacy.language import Language
from spacy.tokens import Doc

from ..errors import DataError, in_short
from ..files import parse_json
from .sources import JSONL, Broken, Item, Keys, Line, Row, Tokens

# The key of a document's id in `doc.user_data`.
ID = "id"


def read_item(item: Item, keys: Keys) -> tuple[str | Tokens, str | int]:
    """The text of an item, or its tokens if it is tokenised, and its id.

    The id is the one in the input (a string or a whole number), or the position if there is none.

    RAISES (DataError): There is no text, or the id has another type.
    """
    if isinstance(item.content, Broken):
        raise DataError(item.content.error)
    text, id_ = _text_of(item.content, keys)
    return text, item.place if id_ is None else id_


def make_doc(nlp: Language, text: str | Tokens, id_: str | int) -> Doc:
    """Create a document for the pipeline, with its id in `doc.user_data["id"]`. Given tokens are kept as they are.

    RAISES (ValueError): It is longer than `nlp.max_length`, or spaCy refuses its text.
    """
    length = len(text) if isinstance(text, str) else sum(map(len, text.words)) + sum(text.spaces or ())
    if length > nlp.max_length:
        raise DataError(
            f"it has {length:,} characters, more than the {nlp.max_length:,} that the pipeline accepts "
            f"(nlp.max_length). Allow them with --max-length."
        )
    doc = nlp.make_doc(text) if isinstance(text, str) else Doc(nlp.vocab, text.words, text.spaces)
    doc.user_data[ID] = id_
    return doc


def _text_of(content: Line | Row | Tokens, keys: Keys) -> tuple[str | Tokens, Any]:
    """The text or the tokens of an item, and its id or None."""
    if isinstance(content, Tokens):
        return content, _checked_id(content.id, ID)
    if isinstance(content, Row):
        return _checked_text(content.text, keys.text), _checked_id(content.id, keys.id)
    try:
        line = content.content.decode("utf8")
    except UnicodeDecodeError as error:
        raise DataError(f"it is not UTF-8: {error}") from error
    if content.suffix != JSONL:
        return line, None
    try:
        item = parse_json(line)
    except ValueError as error:
        raise DataError(f"it is not JSON: {error}") from error
    if not isinstance(item, dict):
        raise DataError(f"it is not a JSON object, but {line[:40]!r}")
    if keys.text not in item:
        raise DataError(f"it has no {keys.text!r}, but {in_short(list(item))}. Name another key with --text-key.")
    return _checked_text(item[keys.text], keys.text), _checked_id(item.get(keys.id), keys.id)


def _checked_text(text: Any, key: str) -> str:
    if not isinstance(text, str):
        raise DataError(f"{key!r} is {str(text)[:40]!r}, which is not a text")
    return text


def _checked_id(id_: Any, key: str) -> Any:
    if id_ is not None and (isinstance(id_, bool) or not isinstance(id_, str | int)):
        raise DataError(f"{key!r} is {str(id_)[:40]!r}; an id must be a string or a whole number")
    return id_
