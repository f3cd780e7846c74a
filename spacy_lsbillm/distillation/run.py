"""A distillation from the text to the student. Each step continues where it was stopped."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spacy.tokens import DocBin
from spacy.vocab import Vocab

from ..annotation import AnnotationSettings, RunSettings, annotate
from ..errors import DataError, StorageError
from ..files import content_of, write_text
from ..training import TrainSettings, has_checkpoints, train
from .gold import check_gold
from .settings import DistillSettings
from .student import Student, check_all_taught, read_student, taught_config
from .taught import SHARDS, close_taught, hard_classes, keep_sure, read_soft
from .teacher import LABELER, Teacher, read_teacher

TARGETS, TRAINING, CONFIG, DONE = "targets", "training", "config.cfg", "distilled.json"


@dataclass
class Found:
    """What the teacher has found in the text.

    documents (int), words (int): Size of the text; words are its tokens.
    spans (int): Number of entities, and of spans in groups that the teacher has learned.
    sure (int): Entities of which it is sure enough for hard labels.
    classified (int): Documents with a class of which it is sure enough.
    """

    documents: int = 0
    words: int = 0
    spans: int = 0
    sure: int = 0
    classified: int = 0


@dataclass(frozen=True)
class Distilled:
    """A finished distillation.

    best (Path): The student.
    card (dict): What its meta records.
    anew (bool): Whether this run has done any work.
    """

    best: Path
    card: dict[str, Any]
    anew: bool


def distill(
    settings: DistillSettings,
    how: RunSettings,
    warn: Callable[[str], None] = print,
    tell: Callable[[str], None] = print,
    quiet: bool = False,
) -> Distilled:
    """Let a teacher annotate a text, and train a student on the result.

    how (RunSettings): How the text is annotated.
    warn (Callable), tell (Callable): Called with each warning, and with progress messages.
    quiet (bool): Show no progress of the annotation.
    RAISES (ValueError): A setting does not fit, found before the teacher is loaded; the teacher finds nothing; or the
        training cannot be continued. Finished work is kept.
    RAISES (OSError): The output cannot be written.
    """
    teacher = read_teacher(settings.teacher_folder)
    student = read_student(settings.student, settings.overrides, teacher)
    if settings.gold is None:
        check_all_taught(student)
    else:
        check_gold(settings.gold)
    output = settings.output.resolve()
    _check_output(output)
    targets = output / TARGETS
    annotate(_annotation(settings, targets), how, warn, quiet)
    close_taught(targets, teacher)
    counts = look(targets, teacher, settings.floor)
    _check_found(counts, student, teacher, settings)
    card = _card(settings, teacher, counts, student)
    tell(f"{counts.documents:,} documents, {counts.words:,} words: {counts.spans:,} spans found")
    config = taught_config(student, _reader(settings, targets, student), card)
    if not _write_config(output, config.to_str(interpolate=False)):
        return Distilled(output / TRAINING / "model-best", card, anew=False)
    train(
        TrainSettings(
            output / CONFIG,
            output / TRAINING,
            use_gpu=settings.use_gpu,
            checkpoint_every=settings.checkpoint_every,
            resume=has_checkpoints(output / TRAINING),
        )
    )
    write_text(output / DONE, json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    return Distilled(output / TRAINING / "model-best", card, anew=True)


def look(targets: Path, teacher: Teacher, floor: float) -> Found:
    """Count the documents, words and labels in a teacher's annotation."""
    counts = Found()
    for shard in sorted((targets / SHARDS).glob("*.spacy")):
        for doc in DocBin().from_disk(shard).get_docs(Vocab()):
            counts.documents += 1
            counts.words += len(doc)
            counts.spans += len(doc.ents) * ("" in teacher.tags)
            counts.spans += sum(len(doc.spans[key]) for key in teacher.tags if key in doc.spans)
            if teacher.exclusive is not None:
                sure = hard_classes(doc.cats, teacher.exclusive, floor)
                counts.classified += any(sure.values())
            if "" in teacher.tags:
                keep_sure(doc, read_soft(doc, teacher), floor)
                counts.sure += len(doc.ents)
    return counts


def _check_output(output: Path) -> None:
    """Check the output folder. RAISES (StorageError): It contains something else."""
    if output.exists() and not output.is_dir():
        raise StorageError(f"{output} is a file: name a folder to write.")
    if output.is_dir() and any(output.iterdir()) and not (output / TARGETS).is_dir():
        raise StorageError(f"{output} is not empty and holds no distillation ({TARGETS}). Name another folder.")


def _annotation(settings: DistillSettings, targets: Path) -> AnnotationSettings:
    return AnnotationSettings(
        pipeline=settings.teacher,
        pipeline_folder=settings.teacher_folder,
        input=settings.text,
        output=targets,
        format="spacy",
        keys=settings.keys,
        code=settings.code,
        top_tags=settings.top_tags,
    )


def _check_found(counts: Found, student: Student, teacher: Teacher, settings: DistillSettings) -> None:
    """Check that there is something to learn.

    RAISES (DataError): The teacher has found nothing for a component to learn from.
    """
    blocks = student.config["components"]
    for name in (*student.soft, *student.hard):
        if blocks[name]["factory"] == LABELER:
            count, what = counts.spans, "no spans"
        elif teacher.exclusive is None or blocks[name]["factory"] == "ner":
            count, what = counts.sure, f"no entities with a probability of at least {settings.floor:g} (--floor)"
        elif name in student.soft and teacher.exclusive:
            count, what = counts.documents, "no documents"
        else:
            count, what = counts.classified, f"no classes with a probability of at least {settings.floor:g} (--floor)"
        if not count:
            raise DataError(
                f"the teacher has found {what} in the {counts.documents:,} documents of {settings.text}: there is "
                f"nothing for {name!r} to learn. Use text like its training data, or train the teacher better; its "
                f"annotation is in {settings.output / TARGETS}."
            )


def _card(settings: DistillSettings, teacher: Teacher, counts: Found, student: Student) -> dict[str, Any]:
    return {
        "teacher": {"name": teacher.name, "version": teacher.version, "fingerprint": teacher.fingerprint},
        **asdict(counts),
        "gold": "none" if settings.gold is None else content_of(settings.gold),
        "floor": settings.floor,
        "top_tags": settings.top_tags,
        "soft": student.soft,
        "hard": student.hard,
    }


def _reader(settings: DistillSettings, targets: Path, student: Student) -> dict[str, Any]:
    return {
        "@readers": "spacy-lsbillm.DistilledCorpus.v1",
        "path": str(targets),
        "gold": None if settings.gold is None else str(settings.gold.resolve()),
        "floor": settings.floor,
        "classes": student.classes,
    }


def _write_config(output: Path, text: str) -> bool:
    """Write the config of the student's training. RETURNS (bool): Whether something is left to train.

    RAISES (StorageError): A training was started with another config.
    """
    path = output / CONFIG
    begun = (output / TRAINING).exists()
    if begun and (not path.is_file() or path.read_text(encoding="utf8") != text):
        raise StorageError(
            f"{output / TRAINING} was started with another student config, gold or --floor than now. Set that back; or "
            f"move that folder and {DONE} elsewhere, to train another student on the same annotation."
        )
    if begun and (output / DONE).is_file():
        return False
    write_text(path, text)
    return True
