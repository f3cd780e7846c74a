"""MkDocs hook that adds a page for each notebook in docs/notebooks/, with the outputs that are stored in it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page `notebooks/NAME.md` for `notebooks/NAME.ipynb`, which can still be downloaded."""
    for path in sorted(Path(config.docs_dir).glob("notebooks/*.ipynb")):
        page = as_markdown(json.loads(path.read_text(encoding="utf8")), path.name)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
    return files


def as_markdown(notebook: dict[str, Any], name: str) -> str:
    """A notebook as a page: its text, its code, and what the code printed or drew."""
    parts = [part for cell in notebook["cells"] for part in _cell(cell)]
    # The link comes after the title, which is the first line of the first cell.
    title, _, rest = parts[0].partition("\n")
    link = f'<a href="{name}" download>download it</a>'
    download = f"This page is a notebook: {link}. The outputs are from one run; numbers vary between processors."
    return "\n\n".join([title, download, rest.strip(), *parts[1:]]) + "\n"


def _cell(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        html = "".join(output.get("data", {}).get("text/html", ""))
        if html:
            # In one line, so that it is not interpreted as Markdown.
            yield "<div>" + " ".join(html.split()) + "</div>"
        elif "text" in output:
            yield "```\n" + "".join(output["text"]).rstrip("\n") + "\n```"
