"""Write small annotated files for docs/ten-steps.md: 200, 100 and 100 SNIPS requests as JSONL with entity spans.

python scripts/tutorial_data.py my
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parent.parent / "assets" / "snips"
SIZES = {"train": 200, "dev": 100, "test": 100}


def main(folder: Path) -> None:
    """Write train.jsonl, dev.jsonl and test.jsonl into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in SIZES.items():
        blocks = (SOURCE / f"{name}.iob").read_text(encoding="utf8").strip("\n").split("\n\n")
        random.Random(0).shuffle(blocks)
        lines = [json.dumps(as_record(block)) for block in blocks[:size]]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf8")


def as_record(block: str) -> dict[str, Any]:
    """A sentence in lines of `word<TAB>tag` as its text and its spans in characters."""
    text, spans = "", []
    for line in block.split("\n"):
        word, tag = line.split("\t")
        text += " " if text else ""
        start, text = len(text), text + word
        if tag.startswith("B-"):
            spans.append({"start": start, "end": len(text), "label": tag[2:]})
        elif tag.startswith("I-"):
            spans[-1]["end"] = len(text)
    return {"text": text, "spans": spans}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
