"""Text, tables and front matter for model cards, with text from users escaped."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Characters with a meaning in Markdown, anywhere or at the start of a line.
SPECIAL = re.compile(r"[\\`*{}\[\]#~$!]|(?<!\w)_|_(?!\w)")
SPECIAL_FIRST = re.compile(r"^(?=[-+=])|(?<=^\d)(?=[.)](\s|$))|(?<=^\d\d)(?=[.)](\s|$))")
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}
# Characters that are not allowed inside backticks, or in the cell of a table.
NOT_IN_BACKTICKS = re.compile(r"[`|\\]")
# YAML accepts JSON, except for these characters, which must be written as numbers.
NOT_IN_YAML = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ufeff\u2028\u2029]")


def plain(text: object) -> str:
    """A text as one line of Markdown that shows it unchanged."""
    line = SPECIAL_FIRST.sub(r"\\", SPECIAL.sub(r"\\\g<0>", _line(text)))
    return "".join(ENTITIES.get(letter, letter) for letter in line)


def code(text: object) -> str:
    """A text as code within a line or a cell of a table."""
    line = _line(text)
    if line and not NOT_IN_BACKTICKS.search(line):
        return f"`{line}`"
    # Character references for everything but letters, digits and blanks, so that nothing in it has a meaning.
    return "<code>" + re.sub(r"[^\w ]|_", lambda found: f"&#{ord(found[0])};", line) + "</code>"


def _line(text: object) -> str:
    readable = str(text).encode("utf8", "replace").decode("utf8")
    return " ".join(CONTROLS.sub(" ", readable).split())


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = ("", "")) -> str:
    """Write a table.

    rows (Iterable[Sequence[str]]): Cells, in Markdown.
    header (Sequence[str]): As many cells.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|" for cells in lines)


def front_matter(entries: Mapping[str, Any]) -> str:
    """The front matter at the top of a card, for a hub: YAML between lines of dashes, one entry per line. Entries
    without a value are left out.

    entries (Mapping[str, Any]): Values that can be written as JSON.
    """
    return "\n".join(f"{key}: {_as_yaml(value)}" for key, value in entries.items() if value)


def _as_yaml(value: Any) -> str:
    def as_number(found: re.Match[str]) -> str:
        return f"\\u{ord(found[0]):04x}"

    return NOT_IN_YAML.sub(as_number, json.dumps(value, ensure_ascii=False))
