"""The texts: short requests, and documents of very different lengths made from them and from longer texts."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from spacy_lsbillm.data.records import read_iob

from ..record import ROOT

SNIPS = ROOT / "assets" / "snips"
LONG = "labelling/litbank_events/train.iob"
SHORTEST, LONGEST = 5, 1500


@dataclass(frozen=True)
class Corpus:
    """Texts and their source.

    texts (list[str]): One text per document.
    words (int): The number of words in all of them, counted at spaces.
    source (str): A description of the source.
    """

    texts: list[str]
    words: int
    source: str


def snips(limit: int) -> Corpus:
    """Requests to a voice assistant from the test set, about nine words each.

    limit (int): Requests are added until they have at least this many words.
    """
    return _corpus(_up_to(_requests("test"), limit), "SNIPS, test set")


def mixed(limit: int, data: Path | None) -> Corpus:
    """Documents of 5 to 1,500 words, with lengths drawn uniformly on a logarithmic scale.

    Documents with fewer than 30 words are made of requests, the others are cut from running text.

    data (Path | None): The folder of data sets, for the running text; None to use requests for it as well.
    """
    rng = np.random.default_rng(0)
    requests = cycle(" ".join(_requests("train")).split())
    text = cycle(running_text(data))
    texts, total = [], 0
    while total < limit:
        length = round(math.exp(rng.uniform(math.log(SHORTEST), math.log(LONGEST))))
        texts.append(" ".join(islice(requests if length < 30 else text, length)))
        total += length
    return _corpus(texts, f"SNIPS and {_name(data)}, {SHORTEST} to {LONGEST:,} words")


def long(words: int, size: int, data: Path | None) -> Corpus:
    """Documents of `size` words each, `words` words in total."""
    text = cycle(running_text(data))
    texts = [" ".join(islice(text, size)) for _ in range(max(1, words // size))]
    return _corpus(texts, f"{_name(data)}, documents of {size:,} words")


def running_text(data: Path | None) -> list[str]:
    """The words of novels, or of requests without a folder of data sets.

    RAISES (SystemExit): The folder does not contain the novels.
    """
    if data is None:
        return " ".join(_requests("train")).split()
    path = data / LONG
    if not path.is_file():
        raise SystemExit(f"there is no {path}: give the folder of data sets with --data, or leave it out.")
    return [word for record in read_iob(path) for word in record.content["tokens"]]


def _name(data: Path | None) -> str:
    return "SNIPS joined" if data is None else "LitBank"


def _requests(split: str) -> list[str]:
    lines = (SNIPS / f"{split}.jsonl").read_text(encoding="utf8").splitlines()
    return [json.loads(line)["text"].strip() for line in lines]


def _up_to(texts: list[str], limit: int) -> Iterator[str]:
    total = 0
    for text in texts:
        if total >= limit:
            return
        total += len(text.split())
        yield text


def _corpus(texts: Iterator[str] | list[str], source: str) -> Corpus:
    kept = list(texts)
    return Corpus(kept, sum(len(text.split()) for text in kept), source)
