"""Text, tables and front matter for model cards. Whatever users have named is escaped."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Characters with a meaning in Markdown, anywhere in a line, or only at its beginning.
SPECIAL = re.compile(r"[\\`*{}\[\]#~$!]|(?<!\w)_|_(?!\w)")
SPECIAL_FIRST = re.compile(r"^(?=[-+=])|(?<=^\d)(?=[.)](\s|$))|(?<=^\d\d)(?=[.)](\s|$))")
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}
# Characters that cannot stand between backticks, or in a cell of a table.
NOT_IN_BACKTICKS = re.compile(r"[`|\\]")
# YAML reads JSON, except for these characters, which it needs as numbers.
NOT_IN_YAML = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ufeff\u2028\u2029]")


def plain(text: object) -> str:
    """A text as one line of Markdown that is displayed exactly as written."""
    line = SPECIAL_FIRST.sub(r"\\", SPECIAL.sub(r"\\\g<0>", _line(text)))
    return "".join(ENTITIES.get(letter, letter) for letter in line)


def code(text: object) -> str:
    """A text as code within a line or in a cell of a table."""
    line = _line(text)
    if line and not NOT_IN_BACKTICKS.search(line):
        return f"`{line}`"
    # Everything but letters, digits and spaces is written as a number, so that nothing in it has a meaning.
    return "<code>" + re.sub(r"[^\w ]|_", lambda found: f"&#{ord(found[0])};", line) + "</code>"


def _line(text: object) -> str:
    readable = str(text).encode("utf8", "replace").decode("utf8")
    return " ".join(CONTROLS.sub(" ", readable).split())


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = ("", "")) -> str:
    """A Markdown table.

    rows (Iterable[Sequence[str]]): The cells of each row, in Markdown.
    header (Sequence[str]): The cells of the header, as many as a row has.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|" for cells in lines)


def front_matter(entries: Mapping[str, Any]) -> str:
    """The front matter of a model card, which a hub reads: YAML, one entry per line.

    Entries without a value are left out.

    entries (Mapping[str, Any]): The entries; values are of types that JSON has.
    RETURNS (str): The lines between the two lines of dashes.
    """
    return "\n".join(f"{key}: {_as_yaml(value)}" for key, value in entries.items() if value)


def _as_yaml(value: Any) -> str:
    def as_number(match: re.Match[str]) -> str:
        return f"\\u{ord(match[0]):04x}"

    return NOT_IN_YAML.sub(as_number, json.dumps(value, ensure_ascii=False))
