"""The data sets: their paths in the folder of data sets, and their kinds of task."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from spacy import blank
from spacy.tokens import DocBin

from spacy_lsbillm.data import Labels, Record, choice_records, labels_of, make_doc, read_records
from spacy_lsbillm.files import digest

SPLITS = ("train", "dev", "test")
# The training examples that are drawn are the same for all models and seeds.
SAMPLE_SEED = 0


@dataclass(frozen=True)
class DataSet:
    """A data set of a task.

    folder (str): Its path in the folder of data sets.
    kind (str): "sequence" (spans), "single" (one class), "multi" (any number of classes) or "choice" (a question).
    """

    folder: str
    kind: str


def _labelling(*names: str) -> dict[str, DataSet]:
    return {name: DataSet(f"labelling/{name}", "sequence") for name in names}


SETS: dict[str, DataSet] = {
    **_labelling(
        "snips_slots",
        "restaurant8k_slots",
        "nlupp_banking_slots",
        "wnut17",
        "crossner_ai",
        "crossner_literature",
        "crossner_music",
        "crossner_politics",
        "crossner_science",
        "bc5cdr",
        "mams_atsa",
        "litbank_events",
    ),
    "snips_intents": DataSet("classification/snips_intents", "single"),
    "nlupp_banking_intents": DataSet("classification/nlupp_banking_intents", "multi"),
    "banking77": DataSet("classification/banking77", "single"),
    "sentence_polarity": DataSet("classification/sentence_polarity", "single"),
    "openbookqa": DataSet("multiple_choice/openbookqa", "choice"),
    "arc_easy": DataSet("multiple_choice/arc_easy", "choice"),
}


def prepare(name: str, data: Path, work: Path, limits: dict[str, int]) -> dict[str, Path]:
    """Write the splits of a data set as .spacy files, unless they exist.

    Training examples are drawn at random; the other splits, which are read in order, start with their first examples.

    limits (dict[str, int]): The maximum number of examples in each split, 0 for all.
    RETURNS (dict[str, Path]): The files by split.
    RAISES (SystemExit): The folder or a file is missing.
    """
    data_set = SETS[name]
    folder = data / data_set.folder
    if not folder.is_dir():
        raise SystemExit(f"there is no {folder}: name the folder of data sets with --data.")
    suffix = ".iob" if data_set.kind == "sequence" else ".jsonl"
    sources = {split: folder / f"{split}{suffix}" for split in SPLITS}
    for path in sources.values():
        if not path.is_file():
            raise SystemExit(f"there is no {path}.")
    content = "".join(digest(path) for path in sources.values())
    source = hashlib.sha256(content.encode()).hexdigest()[:8]
    paths = {split: work / f"{name}-{source}-{split}-{limits[split] or 'all'}.spacy" for split in SPLITS}
    if all(path.exists() for path in paths.values()):
        return paths
    nlp = blank("en")
    records = {split: list(read_records(path)) for split, path in sources.items()}
    labels = Labels() if data_set.kind == "choice" else labels_of(records["train"])
    work.mkdir(parents=True, exist_ok=True)
    for split, path in paths.items():
        chosen = _some(records[split], limits[split], draw=split == "train")
        if data_set.kind == "choice":
            chosen = list(choice_records(chosen, "joint"))
        docs = DocBin(docs=[make_doc(nlp, record, labels) for record in chosen], store_user_data=True)
        # Several processes may write it at once.
        partial = path.with_suffix(f".{os.getpid()}")
        docs.to_disk(partial)
        partial.replace(path)
    return paths


def _some(records: list[Record], limit: int, draw: bool) -> list[Record]:
    if not limit or len(records) <= limit:
        return records
    if not draw:
        return records[:limit]
    return [records[i] for i in np.random.default_rng(SAMPLE_SEED).permutation(len(records))[:limit]]
