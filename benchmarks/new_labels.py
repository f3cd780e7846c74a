"""Seven domains learned one after the other: how well the earlier slots are remembered.

    python -m benchmarks.new_labels run --data DATA    1 to 3 core-minutes per way; continues after the last one
    python -m benchmarks.new_labels report

SNIPS: the requests of one intent after another, 100 training requests each, annotated with the slots that occur in them
and no others. Each stage is a `spacy train` with both components sourced from the stage before, for `--rounds` epochs
over its own requests; `joint` is one training with all 700 requests for as many epochs. The base is the embedded one,
and batches have 150 words. The model of the last step is scored, so nothing is chosen, on all 700 test requests with
all of their slots. DATA contains `labelling/snips_slots/*.iob` and `classification/snips_intents/*.jsonl`, the same
requests in the same order. One seed.
"""

import argparse
import json
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Corpus
from thinc.api import Config
from tqdm import tqdm

from spacy_lsbillm.architectures import DEFAULT_LORA
from spacy_lsbillm.data import read_records
from spacy_lsbillm.data.documents import iob_spans
from spacy_lsbillm.files import TemporaryFolder
from spacy_lsbillm.training.config import training_config
from spacy_lsbillm.training.quiet_run import run_training

from .record import ROOT, circumstances, read_result, write_result

RESULT = ROOT / "benchmarks" / "results" / "new_labels.json"
HEAD = "sequence_labeler"
EXAMPLES, ROUNDS, WORDS, REPLAY, SEED = 100, 3, 150, 50, 0


@dataclass(frozen=True)
class Way:
    """The way in which a stage learns.

    label_sets (bool): Whether documents record which labels they were annotated with.
    teacher (bool): Whether the pipeline of the stage before acts as a teacher.
    replay (int): The number of requests of earlier stages that are mixed in.
    per_stage (bool): Whether that is a number per earlier stage, and not of all of them together.
    times (int): How many times each of them is in an epoch.
    complete (bool): Whether they count as annotated for the new labels too, which they do not have.
    plain (int): The number of other texts of each earlier stage that are mixed in without annotation, for the teacher.
        They count as annotated for the labels that are new in a stage, which they do not have.
    rate (float): The learning rate of the stages after the first, relative to that of the first.
    """

    label_sets: bool = True
    teacher: bool = False
    replay: int = 0
    per_stage: bool = False
    times: int = 1
    complete: bool = False
    plain: int = 0
    rate: float = 1.0


JOINT = "joint"
WAYS = {
    "teacher and replay": Way(teacher=True, replay=REPLAY),
    "teacher and replay, 3 times": Way(teacher=True, replay=REPLAY, times=3),
    "teacher and complete replay, 3 times": Way(teacher=True, replay=REPLAY, times=3, complete=True),
    "teacher and complete replay, 6 times": Way(teacher=True, replay=REPLAY, times=6, complete=True),
    "teacher and complete replay of 50 requests per stage": Way(
        teacher=True, replay=REPLAY, per_stage=True, complete=True
    ),
    "teacher on 100 old texts per stage": Way(teacher=True, plain=EXAMPLES),
    "teacher on 100 old texts per stage, and complete replay, 3 times": Way(
        teacher=True, plain=EXAMPLES, replay=REPLAY, times=3, complete=True
    ),
    "teacher and complete replay, 6 times, half the rate": Way(
        teacher=True, replay=REPLAY, times=6, complete=True, rate=0.5
    ),
    "teacher and complete replay, 6 times, a quarter of the rate": Way(
        teacher=True, replay=REPLAY, times=6, complete=True, rate=0.25
    ),
    "teacher and complete replay of 50 requests per stage, half the rate": Way(
        teacher=True, replay=REPLAY, per_stage=True, complete=True, rate=0.5
    ),
    "naive": Way(label_sets=False),
    "teacher": Way(teacher=True),
    "label sets": Way(),
    "replay": Way(replay=REPLAY),
}


@dataclass(frozen=True)
class Request:
    """An annotated request, as in the file.

    tokens (list[str]): Its tokens.
    spans (list[tuple[int, int, str]]): Its slots as first token, token after the last, and label.
    """

    tokens: list[str]
    spans: list[tuple[int, int, str]]


def read(data: Path, split: str) -> dict[str, list[Request]]:
    """The requests of a split by intent, in the alphabetical order of intents."""
    slots = read_records(data / "labelling" / "snips_slots" / f"{split}.iob")
    lines = (data / "classification" / "snips_intents" / f"{split}.jsonl").read_text(encoding="utf8").splitlines()
    found: dict[str, list[Request]] = defaultdict(list)
    for record, line in zip(slots, lines, strict=True):
        tokens = record.content["tokens"]
        found[json.loads(line)["label"]].append(
            Request(tokens, iob_spans(record.content["tags"], record.where, tokens))
        )
    return {name: found[name] for name in sorted(found)}


def sample(data: Path) -> dict[str, list[Request]]:
    """The training requests, drawn at random, by intent."""
    draw = random.Random(SEED)
    return {name: draw.sample(requests, EXAMPLES) for name, requests in read(data, "train").items()}


def sample_texts(data: Path, number: int) -> dict[str, list[Request]]:
    """Other training requests, without their slots, by intent."""
    draw, known = random.Random(SEED), sample(data)
    found = {}
    for name, requests in read(data, "train").items():
        others = [request for request in requests if request not in known[name]]
        found[name] = [replace(request, spans=[]) for request in draw.sample(others, number)]
    return found


def labels_in(requests: Sequence[Request]) -> list[str]:
    """The labels of requests, sorted."""
    return sorted({label for request in requests for *_, label in request.spans})


def write(path: Path, requests: Sequence[Request], annotated: Sequence[str] | None = None) -> Path:
    """Write requests in spaCy's binary format.

    annotated (Sequence[str] | None): The labels that the requests were annotated with, to be recorded in each document.
    """
    nlp, found = spacy.blank("en"), DocBin(store_user_data=True)
    for request in requests:
        doc = Doc(nlp.vocab, words=request.tokens)
        doc.set_ents([Span(doc, start, end, label=label) for start, end, label in request.spans])
        if annotated is not None:
            doc.user_data["annotated"] = list(annotated)
        found.add(doc)
    found.to_disk(path)
    return path


def config_of(folder: Path, requests: Sequence[Request], rounds: int) -> Config:
    """The config for training a new pipeline."""
    config = training_config(
        str(ROOT / "assets" / "base"),
        pipeline=[HEAD],
        train=str(folder / "train.spacy"),
        dev=str(folder / "dev.spacy"),
        lora={**DEFAULT_LORA, "dropout": 0.0},
    )
    words = sum(len(request.tokens) for request in requests)
    steps = -(-words * rounds // WORDS)
    config["training"] |= {"max_steps": steps, "eval_frequency": steps, "seed": SEED}
    config["training"]["batcher"]["size"] = WORDS
    config["training"]["optimizer"]["learn_rate"] |= {"total_steps": steps, "warmup_steps": steps // 10}
    return config


def train_joint(data: Path, folder: Path, rounds: int) -> Path:
    """Train on all domains at once.

    RETURNS (Path): The pipeline's folder.
    """
    requests = [request for of_domain in sample(data).values() for request in of_domain]
    write(folder / "train.spacy", requests)
    write(folder / "dev.spacy", requests[:7])
    run_training(config_of(folder, requests, rounds), folder / "out")
    return folder / "out" / "model-last"


def train_in_turn(way: Way, data: Path, folder: Path, rounds: int) -> Path:
    """Train on one domain after the other.

    RETURNS (Path): The folder of the pipeline after the last domain.
    """
    before: Path | None = None
    earlier: list[Doc] = []
    earlier_texts: list[Request] = []
    known: set[str] = set()
    texts = sample_texts(data, way.plain)
    vocab = spacy.blank("en").vocab
    for number, (domain, requests) in enumerate(tqdm(list(sample(data).items()), unit="domain", leave=False)):
        place = folder / str(number)
        place.mkdir()
        labels = labels_in(requests)
        write(place / "train.spacy", requests, labels if way.label_sets else None)
        write(place / "dev.spacy", requests[:7])
        config = config_of(place, requests, rounds)
        if before is not None:
            config["components"] = {name: {"source": str(before)} for name in config["nlp"]["pipeline"]}
            config["initialize"]["after_init"] = {
                "@callbacks": "spacy-lsbillm.new_labels.v1",
                "labels": {HEAD: labels},
                "teacher": str(before) if way.teacher else None,
            }
            # The same number of epochs, over more requests.
            added = len(earlier_texts)
            path = place / "train.spacy"
            if earlier_texts:
                path = place / "train"
                path.mkdir()
                shutil.copy(place / "train.spacy", path)
                write(path / "texts.spacy", earlier_texts, sorted({*labels} - known))
                config["corpora"]["train"]["path"] = str(path)
            if way.replay:
                replayed = way.replay * (number if way.per_stage else 1)
                DocBin(docs=earlier, store_user_data=True).to_disk(place / "earlier.spacy")
                config["corpora"]["train"] = {
                    "@readers": "spacy-lsbillm.LabelSetCorpus.v1",
                    "path": str(path),
                    "replay": str(place / "earlier.spacy"),
                    "replay_docs": replayed,
                    "replay_times": way.times,
                    "replay_annotated": "all" if way.complete else None,
                    "seed": SEED + number,
                }
                added += min(replayed, len(earlier)) * way.times
            training = config["training"]
            training["max_steps"] = round(training["max_steps"] * (1 + added / len(requests)))
            training["eval_frequency"] = training["max_steps"]
            schedule = training["optimizer"]["learn_rate"]
            schedule["total_steps"] = training["max_steps"]
            schedule["initial_rate"] *= way.rate
        run_training(config, place / "out")
        before = place / "out" / "model-last"
        earlier += DocBin().from_disk(place / "train.spacy").get_docs(vocab)
        earlier_texts += texts[domain]
        known |= {*labels}
    assert before is not None
    return before


def train(name: str, data: Path, rounds: int) -> dict[str, Any]:
    """Train in one way, and score on the test requests."""
    begun = time.process_time()
    with TemporaryFolder() as folder:
        path = train_joint(data, folder, rounds) if name == JOINT else train_in_turn(WAYS[name], data, folder, rounds)
        seconds = time.process_time() - begun
        nlp = spacy.load(path)
        found: dict[str, Any] = {}
        tests = read(data, "test")
        for domain, requests in tests.items():
            found[domain] = f_of(nlp, folder, requests)
        old = [request for domain in list(tests)[:-1] for request in tests[domain]]
        found |= {"old": f_of(nlp, folder, old), "all": f_of(nlp, folder, [*old, *tests[list(tests)[-1]]])}
    return {"f": found, "core_seconds": round(seconds)}


def f_of(nlp: spacy.Language, folder: Path, requests: Sequence[Request]) -> float:
    """The micro F1 of slots."""
    path = write(folder / "test.spacy", requests)
    return round(nlp.evaluate(list(Corpus(path)(nlp)))["ents_f"], 4)


def run(data: Path, result: Path, ways: Sequence[str], rounds: int) -> None:
    """Train and score the ways that have no result yet."""
    settings = {"examples": EXAMPLES, "rounds": rounds, "words": WORDS, "replay": REPLAY, "seeds": [SEED]}
    found = read_result(result) if result.exists() else {**settings, "cells": {}}
    if settings != {name: found[name] for name in settings}:
        raise SystemExit(f"{result} was made with other settings: give another --result, or remove it.")
    for name in tqdm([way for way in ways if way not in found["cells"]], unit="way"):
        found["cells"][name] = train(name, data, rounds)
        write_result(result, {"what": __doc__.splitlines()[0], "base": "assets/base", **found, **circumstances()})


def report(result: Path) -> str:
    """The table as Markdown: F1 after all seven domains."""
    cells = read_result(result)["cells"]
    domains = [name for name in cells[JOINT]["f"] if name not in ("old", "all")]
    lines = [
        f"| way | the first six | the last ({domains[-1]}) | all |",
        "|---|---|---|---|",
    ]
    for name, cell in cells.items():
        columns = [f"{100 * cell['f'][key]:.1f}" for key in ("old", domains[-1], "all")]
        lines.append(f"| {name} | {' | '.join(columns)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.new_labels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--data", type=Path, help="The folder with labelling/ and classification/")
    parser.add_argument("--ways", nargs="+", default=[JOINT, *WAYS], choices=[JOINT, *WAYS], metavar="WAY")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="epochs over the requests of a stage, and of joint")
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    if args.command == "run":
        if args.data is None:
            parser.error("run needs --data")
        run(args.data, args.result, args.ways, args.rounds)
    print(report(args.result))


if __name__ == "__main__":
    main()
