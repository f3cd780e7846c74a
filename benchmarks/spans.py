"""Nested entities: this project's `span_labeler` compared with spaCy's `spancat`, on the same transformer.

    python -m benchmarks.spans run --data FOLDER
    python -m benchmarks.spans report

FOLDER contains LitBank's nested entities, one file per book: `entities/tsv` of github.com/dbamman/litbank (CC BY 4.0).
Books are split 80/10/10, and sentences are drawn from each split; each sentence is a document. Both components have the
same documents, epochs, dropout and maximum span length, over the embedded base with every layer unmasked. Each is
trained with each rate and the first seed. The rate, the epoch and the threshold are chosen on the development set, for
each component separately; further seeds are trained with the chosen rate only. Speed is that of whole trained pipelines
on the sentences of the test set, measured in turn, in processor time of one thread. An interrupted run continues with
the same command.
"""

import argparse
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training.loop import DIR_MODEL_BEST
from thinc.api import Config, NumpyOps, set_current_ops

from spacy_lsbillm.training.quiet_run import run_training

from .record import ROOT, circumstances, read_result, write_result
from .tasks.models import LLM, Budget, Compared, make_config

RESULT = ROOT / "benchmarks" / "results" / "spans.json"
COMPONENTS = ("span_labeler", "spancat")
# Spans with a lower score are not predicted, so no threshold below it is tried.
LEAST = 0.05
THRESHOLDS = [round(0.05 * step, 2) for step in range(1, 20)]
SPLIT_SEED = 13
ROUNDS = 3


def main() -> None:
    plain, shown = argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spans", description=__doc__, formatter_class=plain)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and score what has no result yet", formatter_class=shown)
    run.add_argument("--data", type=Path, required=True, help="LitBank's entities/tsv")
    run.add_argument("--sentences", type=int, nargs=3, default=[500, 200, 400], help="numbers for train, dev, test")
    run.add_argument("--longest", type=int, default=12, help="maximum span length in words")
    run.add_argument("--rates", type=float, nargs="+", default=[0.004, 0.008], help="learning rates to try")
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    run.add_argument("--epochs", type=int, default=4, help="epochs per training")
    run.add_argument("--work", type=Path, default=ROOT / "benchmarks" / "work" / "spans", help="for trainings")
    for command in (run, commands.add_parser("report", help="print the table")):
        command.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    if args.command == "run":
        compare(args)
    print(table(read_result(args.result)))


def compare(args: argparse.Namespace) -> None:
    """Train, choose, score and measure."""
    data, work, result = (path.resolve() for path in (args.data, args.work, args.result))
    os.chdir(ROOT)
    torch.set_num_threads(1)
    # thinc's own matrix products are 3 to 4 times slower.
    set_current_ops(NumpyOps(use_blis=False))
    corpora = read_corpora(data, args.sentences, work)
    made_with = {name: getattr(args, name) for name in ("sentences", "longest", "epochs")}
    found = read_result(result) if result.exists() else {"made with": made_with, "trainings": {}}
    if found["made with"] != made_with:
        raise SystemExit(f"{result} was made with {found['made with']}: remove it, or name another with --result.")
    cells: dict[str, Any] = found["trainings"]
    first, *others = args.seeds

    def train(component: str, rate: float, seed: int) -> None:
        name = f"{component}/{rate:g}/{seed}"
        if name not in cells:
            cells[name] = {"component": component, "rate": rate, "seed": seed} | train_and_score(
                component_config(component, rate, seed, args, corpora), component, corpora, work / "runs" / name
            )
            write_result(result, {**found, **circumstances()})
            print(f"{name}: dev {cells[name]['dev']:.4f}, {cells[name]['core_seconds']} core-seconds", flush=True)

    for component, rate in product(COMPONENTS, args.rates):
        train(component, rate, first)
    chosen = {component: best_rate(cells, component, first) for component in COMPONENTS}
    for seed, component in product(others, COMPONENTS):
        train(component, chosen[component], seed)
    best = {name: work / "runs" / f"{name}/{rate:g}/{first}" / DIR_MODEL_BEST for name, rate in chosen.items()}
    found["words per second"] = words_per_second(best, corpora["test"])
    write_result(result, {**found, "rate": chosen, **circumstances()})


def read_corpora(data: Path, sentences: Sequence[int], work: Path) -> dict[str, Path]:
    """The splits as .spacy files, with spans in `doc.spans["sc"]`.

    data (Path): A folder of LitBank's files.
    sentences (Sequence[int]): The numbers of sentences to draw for train, dev and test; if a split has fewer, all are
        used.
    """
    books = sorted(data.glob("*.tsv"))
    if len(books) < 10:
        raise SystemExit(f"there are {len(books)} books (*.tsv) in {data}: name LitBank's entities/tsv with --data.")
    rng = np.random.default_rng(SPLIT_SEED)
    order = [books[i] for i in rng.permutation(len(books))]
    share = len(books) // 10
    splits = {"train": order[2 * share :], "dev": order[:share], "test": order[share : 2 * share]}
    vocab = spacy.blank("en").vocab
    work.mkdir(parents=True, exist_ok=True)
    paths = {}
    for (split, own), size in zip(splits.items(), sentences, strict=True):
        docs = [doc for book in own for doc in sentences_of(book, vocab)]
        drawn = [docs[i] for i in sorted(rng.permutation(len(docs))[:size])]
        paths[split] = work / f"{split}.spacy"
        DocBin(docs=drawn).to_disk(paths[split])
    return paths


def sentences_of(book: Path, vocab: Any) -> Iterator[Doc]:
    """Read a book's sentences.

    Each line has a token and one column of IOB2 tags per level of nesting; an empty line ends a sentence.
    """
    for block in book.read_text(encoding="utf8").split("\n\n"):
        rows = [line.split("\t") for line in block.split("\n") if line.strip()]
        if not rows:
            continue
        doc = Doc(vocab, [row[0] for row in rows])
        spans: set[tuple[int, int, str]] = set()
        for column in range(1, max(map(len, rows))):
            tags = [row[column] if column < len(row) and row[column] else "O" for row in rows]
            for start, tag in enumerate(tags):
                if tag.startswith("B-"):
                    end = next((i for i in range(start + 1, len(tags)) if not tags[i].startswith("I-")), len(tags))
                    spans.add((start, end, tag[2:]))
        doc.spans["sc"] = [Span(doc, start, end, label=label) for start, end, label in sorted(spans)]
        yield doc


def component_config(
    component: str, rate: float, seed: int, args: argparse.Namespace, corpora: dict[str, Path]
) -> Config:
    """The config of a training: that of `benchmarks.tasks` with spans."""
    model = Compared("", component=component, tuned=replace(LLM, rate=rate))
    paths = {split: str(corpora[split]) for split in ("train", "dev")}
    n_examples = len(DocBin().from_disk(corpora["train"]))
    config = make_config(model, "sequence", paths, n_examples, Budget(epochs=args.epochs), seed)
    config["training"]["score_weights"] = {"spans_sc_f": 1.0}
    block = config["components"][component]
    if component == "spancat":
        suggester = {"@misc": "spacy.ngram_range_suggester.v1", "min_size": 1, "max_size": args.longest}
        block["suggester"] = suggester
    else:
        block["max_length"] = args.longest
    return config


def train_and_score(config: Config, component: str, corpora: dict[str, Path], folder: Path) -> dict[str, Any]:
    """Train, then choose the epoch and the threshold on the development set. The best epoch is kept in the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    begun = time.process_time()
    training = run_training(config, folder)
    shutil.rmtree(folder / "model-last")
    nlp = load(folder / DIR_MODEL_BEST, component, LEAST)
    spans = {split: gold_and_predicted(nlp, corpora[split]) for split in ("dev", "test")}
    scores = {threshold: score(spans["dev"], threshold)["f"] for threshold in THRESHOLDS}
    threshold = max(THRESHOLDS, key=lambda one: scores[one])
    return {
        "dev_by_step": training.curve,
        "threshold": threshold,
        "dev": scores[threshold],
        "test": score(spans["test"], threshold),
        "test at 0.5": score(spans["test"], 0.5)["f"],
        "core_seconds": round(time.process_time() - begun),
    }


def load(folder: Path, component: str, threshold: float) -> Language:
    """Load a trained pipeline with another threshold.

    spaCy's `spancat` takes its threshold from its saved settings, so it is also replaced there.
    """
    nlp = spacy.load(folder, config={f"components.{component}.threshold": threshold})
    pipe: Any = nlp.get_pipe(component)
    if component == "spancat":
        pipe.cfg["threshold"] = threshold
    return nlp


# Document, first word, word after the last, label.
Place = tuple[int, int, int, str]
Scored = dict[Place, float]


def gold_and_predicted(nlp: Language, path: Path) -> tuple[set[Place], Scored]:
    """The gold spans of a corpus as document, start, end and label, and the predicted ones with their scores."""
    docs = list(DocBin().from_disk(path).get_docs(nlp.vocab))
    gold = {(i, span.start, span.end, span.label_) for i, doc in enumerate(docs) for span in doc.spans["sc"]}
    predicted = {}
    for i, doc in enumerate(nlp.pipe(plain(docs))):
        group = doc.spans["sc"]
        for span, probability in zip(group, group.attrs["scores"], strict=True):
            predicted[i, span.start, span.end, span.label_] = float(probability)
    return gold, predicted


def plain(docs: Iterable[Doc]) -> list[Doc]:
    """Copies of documents with their words only."""
    return [Doc(doc.vocab, [token.text for token in doc]) for doc in docs]


def score(spans: tuple[set[Place], Scored], threshold: float) -> dict[str, float]:
    """Precision, recall and F1 over all spans, and the recall of those that are inside another gold span."""
    gold, predicted = spans
    found = {span for span, probability in predicted.items() if probability >= threshold}
    right = len(gold & found)
    inner = {one for one in gold if any(is_inside(one, other) for other in gold)}
    return {
        "p": right / max(len(found), 1),
        "r": right / max(len(gold), 1),
        "f": 2 * right / max(len(found) + len(gold), 1),
        "r of inner spans": len(inner & found) / max(len(inner), 1),
    }


def is_inside(one: Place, other: Place) -> bool:
    """Whether a span is a proper part of another span of the same document."""
    within = other[1] <= one[1] and one[2] <= other[2]
    return one[0] == other[0] and within and one[1:3] != other[1:3]


def best_rate(cells: dict[str, Any], component: str, seed: int) -> float:
    """The rate with the best score on dev."""
    own = [cell for cell in cells.values() if (cell["component"], cell["seed"]) == (component, seed)]
    return max(own, key=lambda cell: cell["dev"])["rate"]


def words_per_second(folders: dict[str, Path], path: Path) -> dict[str, float]:
    """Words per second of whole pipelines at a threshold of 0.5, as medians of rounds taken in turn.

    A first round, which loads lazily and folds adapters, does not count.
    """
    pipelines = {component: load(folder, component, 0.5) for component, folder in folders.items()}
    seconds: dict[str, list[float]] = {component: [] for component in pipelines}
    words = 0
    for number in range(ROUNDS + 1):
        for component, nlp in pipelines.items():
            docs = plain(DocBin().from_disk(path).get_docs(nlp.vocab))
            words = sum(map(len, docs))
            begun = time.process_time()
            for _ in nlp.pipe(docs):
                pass
            if number:
                seconds[component].append(time.process_time() - begun)
    return {component: round(words / median(found)) for component, found in seconds.items()}


def table(found: dict[str, Any]) -> str:
    """The table as Markdown: a row per component, with the rate that was chosen for it."""
    lines = [
        "| component | rate | threshold | dev F1 | test F1 | precision | recall | recall of inner spans | words/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for component in COMPONENTS:
        rate = found["rate"][component]
        cells = [cell for cell in found["trainings"].values() if (cell["component"], cell["rate"]) == (component, rate)]
        dev = f"{100 * mean(cell['dev'] for cell in cells):.1f}"
        tests = [
            " / ".join(f"{100 * cell['test'][key]:.1f}" for cell in cells)
            for key in ("f", "p", "r", "r of inner spans")
        ]
        thresholds = " / ".join(f"{cell['threshold']:g}" for cell in cells)
        speed = f"{found['words per second'][component]:,}"
        lines.append(f"| {component} | {rate:g} | {thresholds} | {dev} | " + " | ".join(tests) + f" | {speed} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
