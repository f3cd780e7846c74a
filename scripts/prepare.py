"""Turn a folder of slots (SPLIT.iob) and intents (SPLIT.jsonl) of the same sentences into SPLIT.spacy files.

    python scripts/prepare.py assets/snips corpus

Slots become doc.ents, intents doc.cats. The tokens are kept as given.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import spacy
from spacy.tokens import Doc, DocBin, Span
from spacy.training import iob_to_biluo
from spacy.training.iob_utils import biluo_tags_to_offsets
from spacy.vocab import Vocab
from tqdm import tqdm

SPLITS = ("train", "dev", "test")


def read_iob(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Words and tags of each sentence. Spaces inside a word, if any, are left as they are."""
    for number, block in enumerate(path.read_text(encoding="utf8").strip().split("\n\n"), start=1):
        rows = [line.split("\t") for line in block.splitlines()]
        if any(len(row) != 2 for row in rows):
            raise ValueError(f"{path}, sentence {number}: a line is not TOKEN<TAB>TAG.")
        yield [word for word, _ in rows], [tag for _, tag in rows]


def read_intents(path: Path) -> list[str]:
    """The label of each line."""
    return [json.loads(line)["label"] for line in path.read_text(encoding="utf8").splitlines()]


def make_doc(vocab: Vocab, words: list[str], tags: list[str], intent: str, intents: list[str]) -> Doc:
    """One annotated document."""
    doc = Doc(vocab, words=words, spaces=[True] * (len(words) - 1) + [False])
    spans = biluo_tags_to_offsets(doc, iob_to_biluo(tags))
    doc.ents = [span for start, end, label in spans if isinstance(span := doc.char_span(start, end, label), Span)]
    doc.cats = {label: float(label == intent) for label in intents}
    return doc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with SPLIT.iob and SPLIT.jsonl")
    parser.add_argument("target", type=Path, help="folder for SPLIT.spacy")
    args = parser.parse_args()
    vocab = spacy.blank("en").vocab
    intents = sorted(set(read_intents(args.source / "train.jsonl")))
    args.target.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        labels = read_intents(args.source / f"{split}.jsonl")
        sentences = list(read_iob(args.source / f"{split}.iob"))
        if len(labels) != len(sentences):
            raise ValueError(f"{split}: {len(sentences)} sentences with slots, {len(labels)} with intents.")
        pairs = tqdm(zip(sentences, labels, strict=True), total=len(labels), desc=split, unit=" sentences")
        docs = [make_doc(vocab, words, tags, intent, intents) for (words, tags), intent in pairs]
        DocBin(docs=docs).to_disk(args.target / f"{split}.spacy")


if __name__ == "__main__":
    main()
