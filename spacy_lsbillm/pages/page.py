"""HTML pages as single files that need no network."""

import html
from collections.abc import Iterable

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; margin: 1rem 0; font-size: 0.9rem; }}
td, th {{ border-bottom: 1px solid #ccc; padding: 0.2rem 0.6rem; text-align: left; }}
svg {{ max-width: 100%; height: auto; }}
pre {{ overflow-x: auto; background: #f6f6f6; padding: 1rem; }}
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def as_page(title: str, parts: Iterable[str], style: str = "") -> str:
    """Write a whole page.

    title (str): As plain text.
    parts (Iterable[str]): As HTML.
    style (str): CSS rules in addition to those of all pages.
    """
    return PAGE.format(title=html.escape(title), body="\n".join(parts), style=style)


def markdown_as_html(markdown: str) -> str:
    """A report in Markdown as HTML: its tables, lists and paragraphs."""
    parts: list[str] = []
    for block in markdown.split("\n\n"):
        lines = block.strip().splitlines()
        if lines and lines[0].startswith("|"):
            cells = [[html.escape(cell.strip()) for cell in line.strip("|").split("|")] for line in lines]
            head = "".join(f"<th>{cell}</th>" for cell in cells[0])
            body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells[2:])
            parts.append(f"<table><tr>{head}</tr>{body}</table>")
        elif lines and lines[0].startswith("- "):
            items = (html.escape(line.removeprefix("- ")).replace("**", "") for line in lines)
            parts.append("<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>")
        elif lines:
            parts.append(f"<p>{html.escape(' '.join(lines))}</p>")
    return "\n".join(parts)
