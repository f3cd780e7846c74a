"""A griffe extension: docstrings in spaCy's style, `name (type): text`, as Markdown lists for the API reference."""

import re
import textwrap
from typing import Any

import griffe

ENTRY = re.compile(r"^(?P<name>\w+)(?: \((?P<type>[^\n]+?)\))?:\s+(?P<text>.*)$")
CAPITALS = {"RETURNS": "Returns", "RAISES": "Raises", "YIELDS": "Yields"}


class HouseDocstrings(griffe.Extension):
    """Convert the docstrings of all objects."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Convert entries to list items. A line that is indented belongs to the entry above it."""
    lines: list[str] = []
    for line in textwrap.dedent(text).splitlines():
        entry = ENTRY.match(line)
        # An entry without a type must follow another entry; elsewhere it is a sentence with a colon.
        if entry and (entry["type"] or entry["name"] in CAPITALS or (lines and lines[-1].startswith(("- ", "    ")))):
            head = CAPITALS.get(entry["name"]) or f"`{entry['name']}`"
            kind = "" if entry["type"] is None else f" (`{entry['type']}`)"
            if lines and lines[-1] and not lines[-1].startswith(("- ", "    ")):
                lines.append("")
            line = f"- **{head}**{kind}: {entry['text']}"
        lines.append(line)
    return "\n".join(lines)
