"""Run a notebook of the documentation, and compare what it prints with the stored outputs.

    python scripts/run_notebook.py docs/notebooks/first-steps.ipynb
    python scripts/run_notebook.py docs/notebooks/first-steps.ipynb --write     # store the outputs instead

It fails if a cell fails, or if a cell prints another text. Numbers and drawings may differ, as they vary between
processors. Needs the extra [docs].
"""

import argparse
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NUMBER = re.compile(r"-?\d+(\.\d+)?")


def text_of(notebook: NotebookNode) -> list[str]:
    """The text that each code cell prints, with every number replaced by 0."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]
    return [" ".join(NUMBER.sub("0", text).split()) for text in printed]


def clean(notebook: NotebookNode) -> NotebookNode:
    """Remove what differs between runs: times, and the output to standard error."""
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="the notebook")
    parser.add_argument("--write", action="store_true", help="store the outputs instead of comparing them")
    args = parser.parse_args()
    notebook = nbformat.read(args.path, as_version=4)
    stored = text_of(notebook)
    begun = time.monotonic()
    NotebookClient(notebook, timeout=600, kernel_name="python3", coalesce_streams=True).execute()
    clean(notebook)
    print(f"{args.path}: {time.monotonic() - begun:.0f} seconds")
    if args.write:
        nbformat.write(notebook, args.path)
        return
    for number, (before, now) in enumerate(zip(stored, text_of(notebook), strict=True)):
        if before != now:
            sys.exit(f"code cell {number} prints {now!r}, not {before!r}. Use --write to store it.")


if __name__ == "__main__":
    main()
