"""Confidence: the calibration error of scores before and after `calibrate`, and whether guaranteed recalls are kept.

    python -m benchmarks.calibration run --data DATA
    python -m benchmarks.calibration time --data DATA
    python -m benchmarks.calibration report

Pipelines with a sequence_labeler over the embedded base are trained as in `benchmarks.tasks`, with one seed. The curves
are fitted on the development set, and the errors are measured on the test set. An error on a finite test set is never
0: `chance` is the error of perfectly calibrated scores (the mean of random draws). `halves` shows the curves on
documents like those they were fitted on: fitted on one half of the test set and measured on the other. Recalls are
measured on halves too, of the test documents that have gold spans: each of SPLITS random splits calibrates on one half
and counts on the other. Interim results are kept in the work folder, so an interrupted run continues there.
"""

import argparse
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import spacy
from spacy.language import Language
from spacy.tokens import DocBin
from spacy.training import Corpus
from thinc.api import NumpyOps, set_current_ops

from spacy_lsbillm.calibration import Evidence, fit_curve, gather, guarantee, recalls
from spacy_lsbillm.errors import DataError
from spacy_lsbillm.saving.pipelines import save
from spacy_lsbillm.tagging import Calibration, calibration_error
from spacy_lsbillm.training.quiet_run import run_training

from .record import ROOT, circumstances, read_result, write_result
from .tasks.arguments import add_run_arguments
from .tasks.models import MODELS, Budget, make_config
from .tasks.sets import prepare

RESULTS = ROOT / "benchmarks" / "results" / "calibration.json"
ROWS = ["snips_slots", "restaurant8k_slots", "crossner_politics", "wnut17", "litbank_events", "bc5cdr"]
HEAD = "sequence_labeler"
SPLITS, RECALL, DELTA = 200, 0.9, 0.1
# The number of random halves for curves, of random draws for `chance`, and of documents for a loaded pipeline.
HALVES, DRAWS, LOADED = 20, 50, 200
FIELDS = ("gold", "document", "label", "score", "right", "best")
# For the command `time`.
ROUNDS, TEXTS = 5, 300


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.calibration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    shown = argparse.ArgumentDefaultsHelpFormatter
    for name, text in (("run", "train, calibrate and count"), ("time", "measure the head's share of predictions")):
        command = commands.add_parser(name, help=text, formatter_class=shown)
        add_run_arguments(command, ROWS if name == "run" else ROWS[:1], seeds=(0,), examples=1000, dev=0)
    commands.add_parser("report", help="print the tables")
    args = parser.parse_args()
    if args.command != "report":
        data, work = args.data.resolve(), args.work.resolve() / "calibration"
        os.chdir(ROOT)
        set_current_ops(NumpyOps(use_blis=False))
        for name in args.sets:
            limits = {"train": args.examples, "dev": args.dev, "test": args.test}
            paths = prepare(name, data, work / "data", limits)
            folder = trained_pipeline(work / name, paths, args.seeds[0], Budget(epochs=args.epochs))
            if args.command == "run":
                put("sets", name, row(work / name, folder, paths))
            else:
                put("seconds", name, times(folder, paths))
    print(report(read_result(RESULTS)))


def put(part: str, name: str, found: dict[str, Any]) -> None:
    """Write one row into the result file."""
    content = read_result(RESULTS) if RESULTS.exists() else {}
    content.setdefault(part, {})[name] = found
    write_result(RESULTS, content | circumstances())


def trained_pipeline(folder: Path, paths: dict[str, Path], seed: int, budget: Budget, kind: str = "sequence") -> Path:
    """Train a pipeline with the head for a kind of task, unless it exists.

    RETURNS (Path): The folder of its best epoch.
    """
    if not (folder / "model-best").exists():
        n_examples = len(DocBin().from_disk(paths["train"]))
        corpora = {split: str(paths[split]) for split in ("train", "dev")}
        run_training(make_config(MODELS["bidirectional"], kind, corpora, n_examples, budget, seed), folder)
    return folder / "model-best"


def evidence_of(path: Path, pipeline: Path, corpus: Path) -> Evidence:
    """The pipeline's predictions on a corpus as evidence, computed only once."""
    if not path.exists():
        nlp = spacy.load(pipeline)
        found = gather(nlp, [HEAD], Corpus(corpus)(nlp))[HEAD]
        np.savez(path, labels=np.array(found.labels), **{field: getattr(found, field) for field in FIELDS})
    content = np.load(path)
    parts = {field: content[field] for field in FIELDS}
    return Evidence(tuple(content["labels"].tolist()), unknown=0, **parts)


def row(work: Path, pipeline: Path, paths: dict[str, Path]) -> dict[str, Any]:
    """All figures of a data set."""
    dev, test = (evidence_of(work / f"{split}.npz", pipeline, paths[split]) for split in ("dev", "test"))
    fitted, written = fit_curve(dev.written), test.written
    curves = Calibration(fitted.curve, fitted.by_label)
    after = curves.probabilities(written.score, written.label, written.labels)
    rng = np.random.default_rng(0)
    chance = [calibration_error(after, rng.random(len(after)) < after) for _ in range(DRAWS)]
    having = np.flatnonzero(test.gold.sum(axis=1) > 0)
    return {
        "dev": {"documents": len(dev.gold), "spans": len(dev.written.score)},
        "test": {"documents": len(test.gold), "with_gold": len(having), "spans": len(written.score)},
        "curve": fitted.in_words,
        "losses_dev": {kind: round(loss, 4) for kind, loss in fitted.losses.items()},
        "precision": [round(float(part.right.mean()), 4) for part in (dev.written, written)],
        "ece": {
            "dev": rounded(calibration_error(dev.written.score, dev.written.right)),
            "dev_held_out": rounded(calibration_error(fitted.held_out, dev.written.right)),
            "before": rounded(calibration_error(written.score, written.right)),
            "after": rounded(calibration_error(after, written.right)),
            "chance": rounded(np.mean(np.array(chance, dtype=float))),
            "halves": halves(test, rng),
        },
        "in_expectation": guaranteed_recall(test, having, None, rng),
        "with_confidence": guaranteed_recall(test, having, DELTA, rng),
        "from_dev": from_dev(dev, test),
        "loaded": recall_after_loading(work, pipeline, paths, dev, test),
    }


def halves(test: Evidence, rng: np.random.Generator) -> dict[str, float]:
    """The calibration error of curves within the test set.

    RETURNS (dict[str, float]): The error of curves that are fitted on one half and measured on the other, and the error
        by chance, as means over random halves.
    """
    errors, chances = [], []
    for one, other in random_halves(test, np.arange(len(test.gold)), HALVES, rng):
        found, written = fit_curve(one.written), other.written
        curves = Calibration(found.curve, found.by_label)
        after = curves.probabilities(written.score, written.label, written.labels)
        errors.append(calibration_error(after, written.right))
        chances.append(calibration_error(after, rng.random(len(after)) < after))
    return {"after": rounded(np.mean(np.array(errors, float))), "chance": rounded(np.mean(np.array(chances, float)))}


def guaranteed_recall(
    test: Evidence, documents: np.ndarray, delta: float | None, rng: np.random.Generator
) -> dict[str, Any]:
    """The recall in documents from which a guarantee was not computed, over random halves; or why there is none."""
    found, size = [], []
    for one, other in random_halves(test, documents, SPLITS, rng):
        try:
            given = guarantee(one, RECALL, delta)
        except DataError as error:
            return {"refused": str(error)}
        found.append(float(recalls(other, given.threshold).mean()))
        size.append(given.per_document)
    values = np.array(found)
    return {
        "mean": rounded(values.mean()),
        "lowest": rounded(values.min()),
        "share_kept": rounded((values >= RECALL).mean()),
        "candidates_per_document": rounded(np.mean(size)),
    }


def from_dev(dev: Evidence, test: Evidence) -> dict[str, Any]:
    """The mean recall on the test set of a guarantee from the development set, and its standard error.

    The test set may contain a different kind of text.
    """
    try:
        found = recalls(test, guarantee(dev, RECALL).threshold)
    except DataError as error:
        return {"refused": str(error)}
    return {"mean": rounded(found.mean()), "error": rounded(found.std() / np.sqrt(len(found)))}


def random_halves(
    evidence: Evidence, documents: np.ndarray, times: int, rng: np.random.Generator
) -> Iterator[tuple[Evidence, Evidence]]:
    """Split documents at random into halves, `times` times."""
    for _ in range(times):
        order = rng.permutation(documents)
        middle = len(order) // 2
        yield of_documents(evidence, order[:middle]), of_documents(evidence, order[middle:])


def of_documents(evidence: Evidence, documents: np.ndarray) -> Evidence:
    """The evidence of some of the documents, which are renumbered."""
    number = np.full(len(evidence.gold), -1)
    number[documents] = np.arange(len(documents))
    part = evidence.where(number[evidence.document] >= 0)
    return Evidence(
        part.labels, part.gold[documents], 0, number[part.document], part.label, part.score, part.right, part.best
    )


def recall_after_loading(
    work: Path, pipeline: Path, paths: dict[str, Path], dev: Evidence, test: Evidence
) -> dict[str, Any]:
    """The recall of candidates in a pipeline that was calibrated, saved and loaded again.

    RETURNS (dict): Its mean over the first test documents, and the same computed from the evidence, or why there is
        none.
    """
    try:
        given = guarantee(dev, RECALL)
    except DataError as error:
        return {"refused": str(error)}
    fitted, nlp = fit_curve(dev.written), spacy.load(pipeline)
    nlp.get_pipe(HEAD).calibration = Calibration(  # type: ignore[attr-defined]
        fitted.curve, fitted.by_label, candidates_key="candidates", candidates_from=given.threshold
    )
    save(nlp, work / "calibrated")
    nlp = spacy.load(work / "calibrated")
    found = []
    for example in islice(Corpus(paths["test"])(nlp), LOADED):
        wanted = {(span.start_char, span.end_char, span.label_) for span in example.reference.ents}
        doc = nlp(example.predicted)
        spans = {(span.start_char, span.end_char, span.label_) for span in doc.spans["candidates"]}
        if wanted:
            found.append(len(wanted & spans) / len(wanted))
    first = of_documents(test, np.arange(min(LOADED, len(test.gold))))
    expected = recalls(first, given.threshold)
    return {"documents": len(found), "mean": rounded(np.mean(found)), "expected": rounded(expected.mean())}


def times(pipeline: Path, paths: dict[str, Path]) -> dict[str, Any]:
    """Seconds of processor time of the head and of the whole pipeline for some texts.

    They are measured without scores, with scores and with candidates, in turn; the medians over rounds count.
    """
    nlp = spacy.load(pipeline)
    pipe = nlp.get_pipe(HEAD)
    labels = pipe.labels  # type: ignore[attr-defined]
    candidates = Calibration(candidates_key="candidates", candidates_from=dict.fromkeys(labels, 0.01))
    ways: dict[str, tuple[bool, Calibration | None]] = {
        "no scores": (False, None),
        "scores": (True, None),
        "scores and candidates": (True, candidates),
    }
    texts = [doc.text for doc in list(DocBin().from_disk(paths["test"]).get_docs(nlp.vocab))[:TEXTS]]
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for number in range(ROUNDS + 1):
        for way, (scores, calibration) in ways.items():
            pipe.scores, pipe.calibration = scores, calibration  # type: ignore[attr-defined]
            took = once(nlp, texts)
            if number:
                seconds[way].append(took)
    return {
        way: {
            "head": rounded(np.median([head for head, _ in found])),
            "all": rounded(np.median([whole for _, whole in found])),
        }
        for way, found in seconds.items()
    }


def once(nlp: Language, texts: list[str]) -> tuple[float, float]:
    """The seconds of processor time of the head, and of the whole pipeline."""
    begun = time.process_time()
    docs = [nlp.make_doc(text) for text in texts]
    for name, pipe in nlp.pipeline:
        head = time.process_time()
        docs = list(pipe.pipe(docs, batch_size=nlp.batch_size))  # type: ignore[attr-defined]
        if name == HEAD:
            ended = time.process_time()
            return ended - head, ended - begun
    raise SystemExit(f"the pipeline has no {HEAD}.")


def rounded(value: Any) -> float:
    """Round a value to four digits."""
    return round(float(value), 4)


def report(content: dict[str, Any]) -> str:
    """The tables as Markdown."""
    lines = [
        "| data set | spans on dev, test | curve | ECE before | after | chance | halves, after | chance |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = content.get("sets", {})
    for name, one in rows.items():
        ece = one["ece"]
        figures = (ece["before"], ece["after"], ece["chance"], ece["halves"]["after"], ece["halves"]["chance"])
        spans = f"{one['dev']['spans']:,}, {one['test']['spans']:,}"
        lines.append(f"| {name} | {spans} | {one['curve']} | " + " | ".join(f"{x:.3f}" for x in figures) + " |")
    lines += [
        "",
        f"| data set | in expectation: mean recall | candidates | confidence {1 - DELTA:g}: mean recall | kept in | "
        "candidates | dev to test: recall | loaded: recall | expected |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in rows.items():
        cells: list[str] = []
        for part, keys in (
            ("in_expectation", ("mean", "candidates_per_document")),
            ("with_confidence", ("mean", "share_kept", "candidates_per_document")),
            ("from_dev", ("mean",)),
            ("loaded", ("mean", "expected")),
        ):
            cells += ["refused" if "refused" in one[part] else f"{one[part][key]:.3f}" for key in keys]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name, ways in content.get("seconds", {}).items():
        lines += ["", f"| {name} | head's seconds | share of the pipeline |", "|---|---|---|"]
        for way, took in ways.items():
            lines.append(f"| {way} | {took['head']:.3f} | {took['head'] / took['all']:.1%} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
