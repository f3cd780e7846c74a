"""What a small student gains from a teacher and plain text, and how much faster than the teacher it is.

    python -m benchmarks.distill run --data DATA      about ten core-minutes per set and seed; can be resumed
    python -m benchmarks.distill run --data DATA --base FOLDER --depth 15     twice that, for a base of 135M parameters
    python -m benchmarks.distill report

From a labelled set, 500 training sentences are gold, drawn with the seed; up to 5,000 others are plain text, their
labels unseen. The teacher has a `sequence_labeler` over the embedded base, or over that of --base with the settings for
its size, and is trained on the 500. Two students are spaCy's CNN (`HashEmbedCNN.v2`, width 96, depth 4) in a `tok2vec`
component with a head that listens to it: our `sequence_labeler`, which learns from probabilities, or spaCy's `ner`,
which learns from labels. The third, `base`, is the embedded base with a `sequence_labeler`. Students are trained for
the same number of steps, either on the same 500 only (`gold`), or on these and on what the teacher predicts for the
text (`taught`). Each training keeps its best epoch on 200 dev sentences and is scored on the whole test set. Speed:
`nlp.pipe` over the test set on one thread, in core-seconds, teacher and students in turn, the best of three rounds; if
--base is given, one round over the first 500 test documents.
"""

import argparse
import os
import random
import shutil
import time
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from typing import Any

import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Corpus
from thinc.api import Config

from spacy_lsbillm.annotation import RunSettings
from spacy_lsbillm.architectures import DEFAULT_LORA
from spacy_lsbillm.data import Labels, make_doc, read_records
from spacy_lsbillm.distillation import DistillSettings, distill
from spacy_lsbillm.training.config import training_config
from spacy_lsbillm.training.quiet_run import run_training

from .record import ROOT, circumstances, config_text, read_result, write_result
from .tasks.arguments import add_base_argument
from .tasks.models import BASE, Budget, Compared, make_config, on_base

RESULTS = ROOT / "benchmarks" / "results"
GOLD, TEXT, DEV = 500, 5000, 200
TEACHER_STEPS, STUDENT_STEPS, EVERY, WORDS = 250, 1000, 125, 300
# For another base than the embedded one: epochs of its training, and how much is timed.
EPOCHS, TIMED, ROUNDS = 4, 500, 3
STUDENTS = ["sequence_labeler", "ner", "base"]
WIDTH = 96
LISTENER = {"@architectures": "spacy.Tok2VecListener.v1", "width": WIDTH, "upstream": "tok2vec"}
TOK2VEC = {
    "factory": "tok2vec",
    "model": {
        "@architectures": "spacy.HashEmbedCNN.v2",
        "pretrained_vectors": None,
        "width": WIDTH,
        "depth": 4,
        "embed_size": 2000,
        "window_size": 1,
        "maxout_pieces": 3,
        "subword_features": True,
    },
}
HEADS: dict[str, dict[str, Any]] = {
    "sequence_labeler": {"model": {"@architectures": "spacy-lsbillm.SequenceLabeler.v1", "tok2vec": LISTENER}},
    "ner": {
        "model": {
            "@architectures": "spacy.TransitionBasedParser.v2",
            "state_type": "ner",
            "extra_state_tokens": False,
            "hidden_width": 64,
            "maxout_pieces": 2,
            "use_upper": True,
            "tok2vec": LISTENER,
        }
    },
}


def prepare(source: Path, seed: int, folder: Path) -> dict[str, Path]:
    """Write gold, dev and test as documents, and the plain text.

    RETURNS (dict[str, Path]): The files by these names.
    """
    if not (source / "train.iob").is_file():
        raise SystemExit(f"there is no {source / 'train.iob'}: name the folder of data sets with --data.")
    nlp = spacy.blank("en")
    docs = {
        split: [make_doc(nlp, record, Labels()) for record in read_records(source / f"{split}.iob")]
        for split in ("train", "dev", "test")
    }
    for split in ("train", "dev"):
        random.Random(seed).shuffle(docs[split])
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"gold": docs["train"][:GOLD], "dev": docs["dev"][:DEV], "test": docs["test"]}
    paths = {name: folder / f"{name}.spacy" for name in parts}
    for name, chosen in parts.items():
        DocBin(docs=chosen).to_disk(paths[name])
    paths["text"] = folder / "text.txt"
    lines = (" ".join(token.text for token in doc) for doc in docs["train"][GOLD : GOLD + TEXT])
    paths["text"].write_text("".join(f"{line}\n" for line in lines), encoding="utf8")
    return paths


def teacher_config(base: str, depth: int | None, paths: dict[str, Path], seed: int) -> Config:
    """The config of the teacher.

    base (str): The embedded base, or a folder.
    depth (int | None): How many of its first layers are used; None for all.
    """
    if base == BASE:
        return _schedule(embedded_config(paths, TEACHER_STEPS), TEACHER_STEPS, seed)
    model = on_base(base, {"teacher": Compared("every layer unmasked", depth=depth)})["teacher"]
    corpora = {"train": str(paths["gold"]), "dev": str(paths["dev"])}
    return make_config(model, "sequence", corpora, GOLD, Budget(epochs=EPOCHS), seed)


def embedded_config(paths: dict[str, Path], steps: int) -> Config:
    """The config of a pipeline over the embedded base, from which those of CNNs are made."""
    config = training_config(
        str(ROOT / "assets" / "base"),
        pipeline=["sequence_labeler"],
        train=str(paths["gold"]),
        dev=str(paths["dev"]),
        lora={**DEFAULT_LORA, "dropout": 0.0},
    )
    config["training"]["optimizer"]["learn_rate"] |= {"total_steps": steps, "warmup_steps": steps // 10}
    return config


def student_config(student: str, paths: dict[str, Path], seed: int) -> Config:
    """The config of a student: the embedded base, or a CNN with this head and spaCy's usual learning rate."""
    if student == "base":
        return _schedule(embedded_config(paths, STUDENT_STEPS), STUDENT_STEPS, seed)
    config = embedded_config(paths, STUDENT_STEPS)
    config["nlp"]["pipeline"] = ["tok2vec", student]
    config["components"] = {"tok2vec": TOK2VEC, student: {"factory": student, **HEADS[student]}}
    config["training"]["optimizer"]["learn_rate"] = 0.001
    config["training"]["score_weights"] = {"ents_f": 1.0}
    return _schedule(config, STUDENT_STEPS, seed)


def _schedule(config: Config, steps: int, seed: int) -> Config:
    config["training"] |= {"max_steps": steps, "eval_frequency": EVERY}
    config["training"]["batcher"]["size"] = WORDS
    config["system"]["seed"] = seed
    return config


def run(
    names: list[str],
    seeds: list[int],
    students: list[str],
    base: str,
    depth: int | None,
    data: Path,
    work: Path,
    result: Path,
) -> None:
    """Train and score everything that has no result yet."""
    torch.set_num_threads(1)
    teacher = {"base": base if base == BASE else Path(base).name, "depth": depth}
    for seed in seeds:
        for name in names:
            folder = work / f"{name}-{seed}"
            paths = prepare(data / "labelling" / name, seed, folder)
            trained = {"teacher": _train(teacher_config(base, depth, paths, seed), folder / "teacher")}
            for student, arm in product(students, ("gold", "taught")):
                config = student_config(student, paths, seed)
                place = folder / f"{student}-{arm}"
                trained[f"{student}/{arm}"] = (
                    _train(config, place) if arm == "gold" else _teach(config, trained["teacher"], paths, place)
                )
            score(f"{name}/{seed}", trained, paths, config, teacher, work, result)


def _train(config: Config, folder: Path) -> Path:
    """Train a pipeline, unless it is trained already.

    RETURNS (Path): The folder of its best epoch.
    """
    done = folder / "done"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        run_training(config, folder)
        done.touch()
    return folder / "model-best"


def _teach(config: Config, teacher: Path, paths: dict[str, Path], folder: Path) -> Path:
    """Train a student with a teacher.

    RETURNS (Path): The folder of its best epoch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    student = folder.with_suffix(".cfg")
    config.to_disk(student, interpolate=False)
    targets = folder.parent / "sequence_labeler-taught" / "targets"
    if targets.is_dir() and not (folder / "targets").exists():
        # The teacher's predictions are the same for every student.
        shutil.copytree(targets, folder / "targets")
    settings = DistillSettings(str(teacher), teacher, student, paths["text"], folder, gold=paths["gold"])
    return distill(settings, RunSettings(processes=1), quiet=True).best


def score(
    key: str,
    trained: dict[str, Path],
    paths: dict[str, Path],
    config: Config,
    teacher: dict[str, Any],
    work: Path,
    result: Path,
) -> None:
    """Write F1 on the test set and words per second of all pipelines for a data set and seed.

    teacher (dict): The base of the teacher and its depth.
    """
    found = read_result(result) if result.exists() else {**teacher, "cells": {}}
    if {name: found.get(name, teacher[name]) for name in teacher} != teacher:
        raise SystemExit(f"{result} was made with another teacher: give another --result, or remove it.")
    if set(found["cells"].get(key, {})) >= set(trained):
        return
    nlps = {name: spacy.load(path) for name, path in trained.items()}
    large = teacher["base"] != BASE
    timed = islice(_docs(paths["test"]), TIMED if large else None)
    bare = [Doc(Language().vocab, words=[token.text for token in doc]) for doc in timed]
    words = sum(map(len, bare))
    seconds = dict.fromkeys(nlps, float("inf"))
    for _ in range(1 if large else ROUNDS):
        for name, nlp in nlps.items():
            # A pipeline needs documents with its own vocabulary.
            fresh = [Doc(nlp.vocab, words=[token.text for token in doc]) for doc in bare]
            begun = time.process_time()
            for _ in nlp.pipe(fresh):
                pass
            seconds[name] = min(seconds[name], time.process_time() - begun)
    found["cells"][key] = {
        name: {
            "f": round(nlp.evaluate(list(Corpus(paths["test"])(nlp)))["ents_f"], 4),
            "dev_f": round(nlp.meta["performance"]["ents_f"], 4),
            "words_per_core_second": round(words / seconds[name]),
            "speed": round(seconds["teacher"] / seconds[name], 2),
        }
        for name, nlp in nlps.items()
    }
    steps: list[int | str] = [f"{EPOCHS} epochs" if large else TEACHER_STEPS, STUDENT_STEPS]
    settings = {"gold": GOLD, "text": TEXT, "dev": DEV, "steps": steps, "words": WORDS}
    write_result(
        result,
        {
            "what": __doc__.splitlines()[0],
            **settings,
            **found,
            "last_config": config_text(config, str(work)),
            **circumstances(),
        },
    )


def _docs(path: Path) -> Iterator[Doc]:
    return DocBin().from_disk(path).get_docs(Language().vocab)


def report(result: Path) -> str:
    """The table as Markdown: a row per pipeline."""
    if not result.exists():
        raise SystemExit(f"there is no {result}: make it with the command run.")
    lines = ["| set, seed | pipeline | F1 dev | F1 test | of the teacher's F1 | speed |", "|---|---|---|---|---|---|"]
    for key, cell in read_result(result)["cells"].items():
        for name, one in cell.items():
            share = one["f"] / cell["teacher"]["f"]
            lines.append(
                f"| {key} | {name} | {100 * one['dev_f']:.1f} | {100 * one['f']:.1f} | {100 * share:.0f} % | "
                f"{one['speed']:.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.distill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--data", type=Path, help="the folder of data sets")
    parser.add_argument("--sets", nargs="+", default=["snips_slots"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=STUDENTS)
    parser.add_argument("--work", type=Path, default=ROOT / "benchmarks" / "work" / "distill", help="for trainings")
    add_base_argument(parser)
    parser.add_argument("--depth", type=int, help="number of the base's first layers to use (default: all)")
    parser.add_argument("--result", type=Path, help="file of results, by default named after the base")
    args = parser.parse_args()
    default = "distill.json" if args.base == BASE else f"distill_{Path(args.base).name}.json"
    result = (args.result or RESULTS / default).resolve()
    if args.command == "run":
        if args.data is None:
            raise SystemExit("name the folder of data sets with --data.")
        data, work = args.data.resolve(), args.work.resolve() / Path(args.base).name
        os.chdir(ROOT)
        run(args.sets, args.seeds, args.students, args.base, args.depth, data, work, result)
    print(report(result))


if __name__ == "__main__":
    main()
