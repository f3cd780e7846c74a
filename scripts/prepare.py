"""Convert a folder of slots (SPLIT.iob) and intents (SPLIT.jsonl) of the same sentences into SPLIT.spacy files.

    python scripts/prepare.py assets/snips corpus

Slots become doc.ents, intents doc.cats. The gold tokens are kept, and the text consists of the tokens with a space
between them. A pipeline that is trained on it tokenises that text itself, as it will tokenise its users' texts.
"""

import argparse
from pathlib import Path

import spacy
from spacy.tokens import DocBin
from tqdm import tqdm

from spacy_lsbillm.data import Record, labels_of, make_doc, read_records

SPLITS = ("train", "dev", "test")


def merge(slots: Record, intent: Record) -> Record:
    """One record with both annotations of a sentence."""
    tokens = slots.content["tokens"]
    return Record({**slots.content, "text": " ".join(tokens), "label": intent.content["label"]}, slots.where)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with SPLIT.iob and SPLIT.jsonl")
    parser.add_argument("target", type=Path, help="folder for SPLIT.spacy")
    args = parser.parse_args()
    nlp = spacy.blank("en")
    labels = labels_of(read_records(args.source / "train.jsonl"))
    args.target.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        slots = list(read_records(args.source / f"{split}.iob"))
        intents = list(read_records(args.source / f"{split}.jsonl"))
        if len(slots) != len(intents):
            raise ValueError(f"{split}: {len(slots)} sentences with slots, {len(intents)} with intents.")
        pairs = tqdm(zip(slots, intents, strict=True), total=len(slots), desc=split, unit=" sentences")
        docs = [make_doc(nlp, merge(*pair), labels) for pair in pairs]
        DocBin(docs=docs).to_disk(args.target / f"{split}.spacy")


if __name__ == "__main__":
    main()
