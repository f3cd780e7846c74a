"""What the overlap of windows is worth to a score, on documents that are longer than a window.

    python -m benchmarks.overlap run --data DATA
    python -m benchmarks.overlap report

Event triggers in LitBank, the sentences of novels joined to documents of about a thousand words. A pipeline is trained
with the default overlap, causal and with every layer unmasked, and scored with several others on the test set. What was
stopped goes on with the same command.
"""

import argparse
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import spacy
from spacy import blank
from spacy.tokens import DocBin
from spacy.training import Corpus
from spacy.training.loop import DIR_MODEL_BEST
from tqdm import tqdm

from spacy_lsbillm.data import Labels, Record, make_doc, read_records
from spacy_lsbillm.layers.billm_model import fitted_window
from spacy_lsbillm.training_run import run_training

from .record import ROOT, circumstances, read_result, told, write_result
from .tasks.models import LLM, MODELS, SCORE, Budget, make_config
from .tasks.sets import SETS, SPLITS

RESULTS = ROOT / "benchmarks" / "results" / "overlap"
SET, KIND = "litbank_events", "sequence"
COMPARED = ("causal", "bidirectional")
# None is the default.
OVERLAPS = (None, 0, 32, 64, 128)
DOCUMENT_WORDS = 1000
# One document is a batch of some forty sentences.
BUDGET = Budget(epochs=4, batch=1)


def main() -> None:
    plain, shown = argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overlap", description=__doc__, formatter_class=plain)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and score what has no result yet", formatter_class=shown)
    run.add_argument("--data", type=Path, required=True, help="the folder of data sets")
    run.add_argument("--documents", type=int, default=40, help="to train on, 0 for all")
    run.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    run.add_argument("--work", type=Path, default=ROOT / "benchmarks" / "work" / "overlap", help="for trainings")
    for command in (run, commands.add_parser("report", help="print the table and write it")):
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    args = parser.parse_args()
    if args.command == "report":
        report(args.results)
        return
    data, work, results = (path.resolve() for path in (args.data, args.work, args.results))
    os.chdir(ROOT)
    paths = prepare(data, work, args.documents)
    for seed, model in tqdm(list(product(args.seeds, COMPARED)), unit=" trainings"):
        result = results / model / f"{seed}.json"
        if not result.exists():
            run_one(model, seed, paths, args.documents, work, result)


def prepare(data: Path, work: Path, limit: int) -> dict[str, Path]:
    """The splits in long documents."""
    nlp = blank("en")
    work.mkdir(parents=True, exist_ok=True)
    paths = {}
    for split in SPLITS:
        source = data / SETS[SET].folder / f"{split}.iob"
        if not source.is_file():
            raise SystemExit(f"there is no {source}: name the folder of data sets with --data.")
        docs = [make_doc(nlp, record, Labels()) for record in joined(read_records(source))]
        paths[split] = work / f"{split}.spacy"
        DocBin(docs=docs[: limit or None] if split == "train" else docs).to_disk(paths[split])
    return paths


def joined(records: Iterable[Record]) -> Iterator[Record]:
    """Sentences in a row as one document, until it has enough words."""
    tokens: list[str] = []
    tags: list[str] = []
    for record in records:
        tokens += record.content["tokens"]
        tags += record.content["tags"]
        if len(tokens) >= DOCUMENT_WORDS:
            yield Record({"tokens": tokens, "tags": tags}, record.where)
            tokens, tags = [], []


def run_one(model: str, seed: int, paths: dict[str, Path], documents: int, work: Path, result: Path) -> None:
    """Train once, score with each overlap, and write the result file."""
    folder = work / f"{model}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    corpora = {split: str(paths[split]) for split in ("train", "dev")}
    sizes = {split: len(DocBin().from_disk(path)) for split, path in paths.items()}
    config = make_config(MODELS[model], KIND, corpora, sizes["train"], BUDGET, LLM, seed)
    run = run_training(config, folder)
    test, windows = {}, {}
    for overlap in OVERLAPS:
        setting = {"components": {"transformer": {"model": {"overlap": overlap}}}}
        nlp = spacy.load(folder / DIR_MODEL_BEST, config=setting)
        size, fitted = fitted_window(nlp.get_pipe("transformer").model)
        test[fitted] = nlp.evaluate(list(Corpus(paths["test"])(nlp)))[SCORE[KIND]]
        windows[fitted] = size
    found = {"model": model, "seed": seed, "documents": documents, "sizes": sizes, "dev": run.score, "test": test}
    write_result(result, {**found, "window": windows, "config": told(config), **circumstances()})
    shutil.rmtree(folder)


def report(results: Path) -> None:
    """Markdown: a row an overlap, a column a mask, F1 on the test set and what it is above that of no overlap."""
    scores: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
    for path in sorted(results.glob("*/*.json")):
        found = read_result(path)
        for overlap, score in found["test"].items():
            scores[found["model"], int(overlap)][found["seed"]] = 100 * score
    if not scores:
        raise SystemExit(f"there are no results in {results}: make some with the command run.")
    lines = ["| overlap | " + " | ".join(f"{model} | above none" for model in COMPARED) + " |"]
    lines.append("|---|" + "---|" * (2 * len(COMPARED)))
    for overlap in sorted({key[1] for key in scores}):
        cells = []
        for model in COMPARED:
            found, none = scores[model, overlap], scores[model, 0]
            cells += [_spread(list(found.values())), _spread([found[seed] - none[seed] for seed in found])]
        lines.append(f"| {overlap} | " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    (results / "table.md").write_text(text, encoding="utf8")
    print(text)


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
