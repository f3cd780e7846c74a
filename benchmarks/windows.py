"""The effect of the length and the overlap of windows on scores, for documents that are longer than a window.

    python -m benchmarks.windows run --data DATA
    python -m benchmarks.windows report

Event triggers in novels (LitBank) and diseases and chemicals in abstracts (BC5CDR), with consecutive sentences joined
to documents of about a thousand words. A pipeline with every layer unmasked is trained with each window length, and
each pipeline is scored with each length and several overlaps on the test set. An interrupted run continues with the
same command.
"""

import argparse
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import spacy
from filelock import FileLock, Timeout
from spacy import blank
from spacy.tokens import DocBin
from spacy.training import Corpus
from spacy.training.loop import DIR_MODEL_BEST
from tqdm import tqdm

from spacy_lsbillm.data import Labels, Record, make_doc, read_records
from spacy_lsbillm.training.quiet_run import run_training

from .record import ROOT, circumstances, config_text, read_result, write_result
from .tasks.models import MODELS, SCORE, Budget, make_config
from .tasks.sets import SETS, SPLITS

RESULTS = ROOT / "benchmarks" / "results" / "windows"
COMPARED = ("litbank_events", "bc5cdr")
MODEL, KIND = "bidirectional", "sequence"
# The overlaps that are scored with each window length.
OVERLAPS = {256: (0, 16, 64), 128: (0, 8, 16, 32), 96: (0, 16), 64: (0, 16)}
TRAINED = (256, 128, 96)
# The former default, with which the others are compared: trained with, window, overlap.
BEFORE = (256, 256, 16)
DOCUMENT_WORDS = 1000
# A batch is one document, about forty sentences.
BUDGET = Budget(epochs=4, batch=1)


def main() -> None:
    plain, shown = argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.windows", description=__doc__, formatter_class=plain)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and score what has no result yet", formatter_class=shown)
    run.add_argument("--data", type=Path, required=True, help="the folder of data sets")
    run.add_argument("--sets", nargs="+", choices=COMPARED, default=list(COMPARED), metavar="SET", help="data sets")
    run.add_argument("--documents", type=int, default=40, help="maximum number per split, 0 for all")
    run.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    run.add_argument("--work", type=Path, default=ROOT / "benchmarks" / "work" / "windows", help="for trainings")
    for command in (run, commands.add_parser("report", help="print the table and write it")):
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    args = parser.parse_args()
    if args.command == "report":
        report(args.results)
        return
    data, work, results = (path.resolve() for path in (args.data, args.work, args.results))
    os.chdir(ROOT)
    for seed, name, window in tqdm(list(product(args.seeds, args.sets, TRAINED)), unit=" trainings"):
        result = results / name / str(window) / f"{seed}.json"
        result.parent.mkdir(parents=True, exist_ok=True)
        # Several processes may share the work.
        with suppress(Timeout), FileLock(result.with_suffix(".lock"), blocking=False):
            if not result.exists():
                run_one(name, window, seed, prepare(name, data, work, args.documents), work, result)


def prepare(name: str, data: Path, work: Path, limit: int) -> dict[str, Path]:
    """Write the splits of a data set as long documents, unless they exist."""
    nlp = blank("en")
    folder = work / "data" / f"{name}-{limit}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for split in SPLITS:
        source = data / SETS[name].folder / f"{split}.iob"
        if not source.is_file():
            raise SystemExit(f"there is no {source}: name the folder of data sets with --data.")
        paths[split] = folder / f"{split}.spacy"
        if not paths[split].exists():
            docs = [make_doc(nlp, record, Labels()) for record in join_sentences(read_records(source))]
            partial = paths[split].with_suffix(f".{os.getpid()}")
            DocBin(docs=docs[: limit or None]).to_disk(partial)
            partial.rename(paths[split])
    return paths


def join_sentences(records: Iterable[Record]) -> Iterator[Record]:
    """Join consecutive sentences to documents of at least `DOCUMENT_WORDS` words."""
    tokens: list[str] = []
    tags: list[str] = []
    for record in records:
        tokens += record.content["tokens"]
        tags += record.content["tags"]
        if len(tokens) >= DOCUMENT_WORDS:
            yield Record({"tokens": tokens, "tags": tags}, record.where)
            tokens, tags = [], []


def cut(window: int, overlap: int) -> dict[str, Any]:
    """The config overrides for a window length and an overlap."""
    return {"components": {"transformer": {"model": {"window": window, "overlap": overlap}}}}


def run_one(name: str, window: int, seed: int, paths: dict[str, Path], work: Path, result: Path) -> None:
    """Train once, score with each window length and overlap, and write the result file."""
    folder = work / f"{name}-{window}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    corpora = {split: str(paths[split]) for split in ("train", "dev")}
    sizes = {split: len(DocBin().from_disk(path)) for split, path in paths.items()}
    config = make_config(MODELS[MODEL], KIND, corpora, sizes["train"], BUDGET, seed)
    config = config.merge(cut(window, BEFORE[2]))
    run = run_training(config, folder)
    test: dict[str, float] = {}
    for length, overlaps in OVERLAPS.items():
        for overlap in overlaps:
            nlp = spacy.load(folder / DIR_MODEL_BEST, config=cut(length, overlap))
            test[f"{length}/{overlap}"] = nlp.evaluate(list(Corpus(paths["test"])(nlp)))[SCORE[KIND]]
    found = {
        "set": name,
        "model": MODEL,
        "window": window,
        "seed": seed,
        "sizes": sizes,
        "dev": run.score,
        "test": test,
    }
    write_result(result, {**found, "config": config_text(config), **circumstances()})
    shutil.rmtree(folder)


def report(results: Path) -> None:
    """Print and write a table with a row per window length and overlap.

    It shows F1 on the test set, and the difference from the former default, computed seed by seed.
    """
    scores: dict[tuple[str, int, int, int], dict[int, float]] = defaultdict(dict)
    for path in sorted(results.glob("*/*/*.json")):
        found = read_result(path)
        for cells, score in found["test"].items():
            length, overlap = map(int, cells.split("/"))
            scores[found["set"], found["window"], length, overlap][found["seed"]] = 100 * score
    if not scores:
        raise SystemExit(f"there are no results in {results}: make some with the command run.")
    sets = [name for name in COMPARED if any(key[0] == name for key in scores)]
    titles = [title for name in sets for title in (name, f"against {BEFORE[1]}/{BEFORE[2]}")]
    lines = ["| trained with | window | overlap | " + " | ".join(titles) + " |"]
    lines.append("|---|---|---|" + "---|" * (2 * len(sets)))
    for window, length in product(TRAINED, OVERLAPS):
        for overlap in OVERLAPS[length]:
            if not any((name, window, length, overlap) in scores for name in sets):
                continue
            cells = []
            for name in sets:
                found, before = scores[name, window, length, overlap], scores[(name, *BEFORE)]
                both = sorted(set(found) & set(before))
                cells += [_spread(list(found.values())), _spread([found[s] - before[s] for s in both], "+")]
            lines.append(f"| {window} | {length} | {overlap} | " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    (results / "table.md").write_text(text, encoding="utf8")
    print(text)


def _spread(values: list[float], sign: str = "") -> str:
    if not values:
        return ""
    return f"{mean(values):{sign}.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
