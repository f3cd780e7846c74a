"""Confidence of classifiers: the calibration error of class probabilities before and after `calibrate`.

    python -m benchmarks.class_calibration run --data DATA
    python -m benchmarks.class_calibration report

Classifiers with PooledTextCat over the embedded base are trained as in `benchmarks.tasks`, with one seed. They are
calibrated on the development set, and their errors are measured on the test set. `chance` is the error of perfectly
calibrated probabilities on as many documents (the mean of random draws). Trainings are kept in the work folder, so an
interrupted run continues there.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import spacy
from spacy.training import Corpus
from thinc.api import NumpyOps, set_current_ops

from spacy_lsbillm.calibration import gather
from spacy_lsbillm.calibration.classes import fit_classes, has_exclusive_classes, probabilities_of_classes
from spacy_lsbillm.calibration.curves import log_loss
from spacy_lsbillm.tagging import calibration_error

from .calibration import DRAWS, rounded, trained_pipeline
from .record import ROOT, circumstances, read_result, write_result
from .tasks.arguments import add_run_arguments
from .tasks.models import COMPONENT, Budget
from .tasks.sets import SETS, prepare

RESULTS = ROOT / "benchmarks" / "results" / "class_calibration.json"
ROWS = ["snips_intents", "banking77", "sentence_polarity", "nlupp_banking_intents"]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.class_calibration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and calibrate", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_run_arguments(run, ROWS, seeds=(0,), examples=1000, dev=0)
    commands.add_parser("report", help="print the table")
    args = parser.parse_args()
    if args.command == "run":
        data, work = args.data.resolve(), args.work.resolve() / "calibration"
        os.chdir(ROOT)
        set_current_ops(NumpyOps(use_blis=False))
        for name in args.sets:
            paths = prepare(name, data, work / "data", {"train": args.examples, "dev": args.dev, "test": args.test})
            kind = SETS[name].kind
            folder = trained_pipeline(work / name, paths, args.seeds[0], Budget(epochs=args.epochs), kind)
            content = read_result(RESULTS) if RESULTS.exists() else {}
            content.setdefault("sets", {})[name] = row(folder, paths, COMPONENT[kind])
            write_result(RESULTS, content | circumstances())
    print(report(read_result(RESULTS)))


def row(pipeline: Path, paths: dict[str, Path], head: str) -> dict[str, Any]:
    """All figures of a data set."""
    nlp = spacy.load(pipeline)
    one_of_all = has_exclusive_classes(nlp.get_pipe(head))
    dev, test = (gather(nlp, [head], Corpus(paths[split])(nlp))[head] for split in ("dev", "test"))
    fitted = fit_classes(dev, one_of_all)
    before, right = test.written.score, test.written.right
    after = probabilities_of_classes(test, fitted, one_of_all)
    rng = np.random.default_rng(0)
    chance = [calibration_error(after, rng.random(len(after)) < after) for _ in range(DRAWS)]
    return {
        "documents": {"dev": len(dev.gold), "test": len(test.gold)},
        "curve": fitted.in_words,
        "temperature": rounded(1 / fitted.curve.a) if one_of_all else None,
        "right": rounded(right.mean()),
        "ece": {
            "before": rounded(calibration_error(before, right)),
            "after": rounded(calibration_error(after, right)),
            "chance": rounded(np.mean(np.array(chance, dtype=float))),
        },
        "log_loss": {"before": rounded(log_loss(before, right)), "after": rounded(log_loss(after, right))},
    }


def report(content: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        "| data set | documents on dev, test | classes right | curve | ECE before | after | chance | log loss before | "
        "after |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in content["sets"].items():
        documents, error, loss = found["documents"], found["ece"], found["log_loss"]
        curve = found["curve"] + ("" if found["temperature"] is None else f" {found['temperature']:.2f}")
        lines.append(
            f"| {name} | {documents['dev']:,}, {documents['test']:,} | {found['right']:.3f} | {curve} | "
            f"{error['before']:.3f} | {error['after']:.3f} | {error['chance']:.3f} | {loss['before']:.3f} | "
            f"{loss['after']:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
