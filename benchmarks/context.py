"""What a model trained on sentences loses on documents, and what joined sentences and the context of a sentence gain.

    python -m benchmarks.context run --data DATA
    python -m benchmarks.context report

Event triggers in novels (LitBank) and diseases and chemicals in abstracts (BC5CDR): the first sentences of each split,
in order. Every pipeline is the embedded base with all layers unmasked, trained for four epochs. Its best epoch is
chosen on dev in the form that it is trained on, and it is scored on the test sentences, one by one and joined to
documents of 1,000 words. `sentences` is trained on single sentences, `joined_100` and `joined_500` through JoinedCorpus
with at most that many words. `context_0` and `context_64` are trained like `joined_500`, and see the sentences that a
sentencizer finds, alone or with their context in the document. They have fewer training sentences, as context is
expensive. An interrupted run continues with the same command.
"""

import argparse
import os
import shutil
import time
from itertools import islice
from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import DocBin
from spacy.training import Corpus
from spacy.training.loop import DIR_MODEL_BEST
from spacy.util import fix_random_seed, registry
from thinc.api import Config
from tqdm import tqdm

from spacy_lsbillm.data import Labels, make_doc, read_records
from spacy_lsbillm.data.readers import create_joined_corpus_v1
from spacy_lsbillm.training.quiet_run import run_training

from .record import ROOT, circumstances, config_text, read_result, write_result
from .tasks.models import MODELS, SCORE, Budget, make_config
from .tasks.sets import SETS, SPLITS

RESULT = ROOT / "benchmarks" / "results" / "context.json"
MODEL, KIND = "bidirectional", "sequence"
EPOCHS = 4
BATCHER = {
    "@batchers": "spacy.batch_by_words.v1",
    "size": 400,
    "tolerance": 0.2,
    "discard_oversize": False,
    "get_length": None,
}
LONG = {"min_words": 1000, "max_words": 1000}
# Sentences per split. Context is expensive: 64 pieces on both sides of a sentence are five times the work.
FULL = {"train": 1000, "dev": 200, "test": 1000}
HALF = {"train": 500, "dev": 100, "test": 500}
SMALL = {"train": 200, "dev": 50, "test": 500}
CONTEXTS = {"context_0": 0, "context_64": 64}
JOINED = {"joined_100": 100, "joined_500": 500, "context_0": 500, "context_64": 500}
CELLS = [
    ("bc5cdr", "sentences", HALF),
    ("bc5cdr", "joined_500", HALF),
    ("bc5cdr", "joined_100", HALF),
    ("litbank_events", "context_0", SMALL),
    ("litbank_events", "context_64", SMALL),
    ("litbank_events", "sentences", FULL),
    ("litbank_events", "joined_100", FULL),
]


def main() -> None:
    plain, shown = argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.context", description=__doc__, formatter_class=plain)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and score what has no result yet", formatter_class=shown)
    run.add_argument("--data", type=Path, required=True, help="the folder of data sets")
    run.add_argument("--seeds", nargs="+", type=int, default=[0])
    run.add_argument("--work", type=Path, default=ROOT / "benchmarks" / "work" / "context", help="for trainings")
    for command in (run, commands.add_parser("report", help="print the table")):
        command.add_argument("--result", type=Path, default=RESULT, help="the result file")
    args = parser.parse_args()
    if args.command == "run":
        data, work, result = (path.resolve() for path in (args.data, args.work, args.result))
        os.chdir(ROOT)
        for seed in args.seeds:
            for name, arm, limits in tqdm(CELLS, desc=f"seed {seed}", unit=" trainings"):
                run_cell(name, arm, limits, seed, data, work, result)
    report(args.result)


def run_cell(name: str, arm: str, limits: dict[str, int], seed: int, data: Path, work: Path, result: Path) -> None:
    """Train and score one cell, unless it is in the result file.

    limits (dict): The number of sentences in each split.
    """
    found = read_result(result) if result.exists() else {"cells": {}}
    key = f"{name}/{arm}/{seed}"
    if key in found["cells"]:
        return
    paths = {split: prepare(name, split, limits[split], data, work) for split in SPLITS}
    words = {split: sum(len(doc) for doc in read_docs(path)) for split, path in paths.items()}
    folder = work / key.replace("/", "-")
    shutil.rmtree(folder, ignore_errors=True)
    config = config_of(arm, paths, seed)
    used = time.process_time()
    training = run_training(config, folder)
    nlp = spacy.load(folder / DIR_MODEL_BEST)
    readers = {"sentences": Corpus(paths["test"]), "documents": create_joined_corpus_v1(paths["test"], **LONG)}
    test = {form: nlp.evaluate(list(reader(nlp)))[SCORE[KIND]] for form, reader in readers.items()}
    found["cells"][key] = {
        "sentences": limits,
        "words": words,
        "dev": training.score,
        "dev_by_step": training.curve,
        "test": test,
        "core_seconds": round(time.process_time() - used, 1),
    }
    found |= {"config": config_text(config, str(work)), **circumstances()}
    write_result(result, found)
    shutil.rmtree(folder)


def prepare(name: str, split: str, limit: int, data: Path, work: Path) -> Path:
    """Write the first sentences of a split as a .spacy file, unless it exists."""
    source = data / SETS[name].folder / f"{split}.iob"
    if not source.is_file():
        raise SystemExit(f"there is no {source}: name the folder of data sets with --data.")
    path = work / f"{name}-{split}-{limit}.spacy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        nlp = spacy.blank("en")
        partial = path.with_suffix(f".{os.getpid()}")
        docs = [make_doc(nlp, record, Labels()) for record in islice(read_records(source), limit)]
        DocBin(docs=docs).to_disk(partial)
        partial.replace(path)
    return path


def read_docs(path: Path) -> list[Any]:
    """The documents of a file."""
    return list(DocBin().from_disk(path).get_docs(spacy.blank("en").vocab))


def config_of(arm: str, paths: dict[str, Path], seed: int) -> Config:
    """The config of a training of `EPOCHS` epochs, with the base's default windows."""
    joined = {"@readers": "spacy-lsbillm.JoinedCorpus.v1"}
    readers: dict[str, dict[str, Any]] = {
        "train": {**joined, "path": "${paths.train}", "min_words": 1, "max_words": JOINED.get(arm, 1)},
        "dev": {**joined, "path": "${paths.dev}", **LONG},
    }
    steps = batches(paths["train"], None if arm not in JOINED else readers["train"])
    corpora = {split: str(paths[split]) for split in ("train", "dev")}
    config = make_config(MODELS[MODEL], KIND, corpora, steps, Budget(epochs=EPOCHS, batch=1), seed)
    model = config["components"]["transformer"]["model"]
    model["window"] = model["overlap"] = None
    config["training"]["batcher"] = BATCHER
    if arm in JOINED:
        config["corpora"] |= readers
    if arm in CONTEXTS:
        getter = {"@span_getters": "spacy-lsbillm.context_spans.v1", "context": CONTEXTS[arm], "spans": None}
        model["get_spans"] = getter
        config["components"]["sentencizer"] = {"factory": "sentencizer"}
        config["nlp"]["pipeline"] = ["sentencizer", *config["nlp"]["pipeline"]]
        config["training"]["annotating_components"] = ["sentencizer"]
    return config


def batches(path: Path, reader: dict[str, Any] | None) -> int:
    """The number of batches in an epoch over the training set: documents fill them less evenly than sentences."""
    corpus = registry.resolve({"corpus": {**reader, "path": str(path)}})["corpus"] if reader else Corpus(path)
    batcher = registry.resolve({"batcher": BATCHER})["batcher"]
    fix_random_seed(0)
    return sum(1 for _ in batcher(corpus(spacy.blank("en"))))


def report(result: Path) -> None:
    """Print a table as Markdown: a row per training, with F1 on the test set in both forms."""
    if not result.exists():
        raise SystemExit(f"there is no {result}: make it with the command run.")
    found = read_result(result)
    print("| set | trained as | seed | training sentences | dev | test, sentences | test, documents | core-minutes |")
    print("|---|---|---|---|---|---|---|---|")
    for key, cell in found["cells"].items():
        name, arm, seed = key.split("/")
        scores = " | ".join(f"{100 * score:.1f}" for score in (cell["dev"], *cell["test"].values()))
        print(
            f"| {name} | {arm} | {seed} | {cell['sentences']['train']} | {scores} | {cell['core_seconds'] / 60:.1f} |"
        )


if __name__ == "__main__":
    main()
