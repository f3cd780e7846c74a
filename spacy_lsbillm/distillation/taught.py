"""The folder with a teacher's annotation of a text: written once, read by each training.

manifest.json, shards/, …   what `annotate` writes
teacher.json                the teacher, with its tags and classes
files.sha256                the seal over the shards and teacher.json
"""

import json
from pathlib import Path

import numpy as np
from spacy.tokens import Doc, Span

from ..errors import StorageError
from ..files import SEAL, check_seal, parse_json, write_seal, write_text
from ..pipeline.soft_tags import SoftTags, unpack_soft_tags
from ..pipeline.span_writing import scores_of_entities
from .teacher import Teacher

SHARDS = "shards"
TEACHER = "teacher.json"


def close_taught(folder: Path, teacher: Teacher) -> None:
    """Add the teacher to a finished annotation, and seal it. If it is already sealed, the seal is checked.

    RAISES (StorageError): It was altered since.
    """
    if (folder / SEAL).exists():
        read_taught(folder)
        return
    write_text(folder / TEACHER, json.dumps(teacher.as_dict(), indent=1, ensure_ascii=False) + "\n")
    write_seal(folder, [folder / TEACHER, *(folder / SHARDS).glob("*.spacy")])


def read_taught(folder: Path) -> Teacher:
    """Read the teacher of a folder of targets.

    RAISES (StorageError): There are none, or they were altered.
    """
    if not (folder / SEAL).is_file():
        raise StorageError(f"{folder} holds no {SEAL}: it is not finished. Create it with `lsbillm distill`.")
    check_seal(folder, "since the teacher was run", "remove the folder and run `lsbillm distill` again")
    try:
        return Teacher.from_dict(parse_json((folder / TEACHER).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{folder / TEACHER} cannot be read ({type(error).__name__}: {error}).") from error


def keep_sure(doc: Doc, soft: SoftTags | None, floor: float) -> None:
    """Keep only the entities of which the teacher is sure.

    The tokens of the others, and tokens that may be part of an entity, get spaCy's missing annotation.

    soft (SoftTags | None): The teacher's probabilities of entity tags.
    floor (float): The minimum probability.
    """
    known = np.ones(len(doc), dtype=bool)
    if soft is not None:
        known = (soft.of_tag(0) >= floor) | (soft.counts == 0)
    kept = []
    for ent, score in zip(doc.ents, scores_of_entities(doc), strict=True):
        sure = score is None or score >= floor
        known[ent.start : ent.end] = sure
        if sure:
            kept.append(Span(doc, ent.start, ent.end, label=ent.label_))
    unknown = np.flatnonzero(~known).tolist()
    doc.set_ents(kept, missing=[doc[i : i + 1] for i in unknown])


def hard_classes(cats: dict[str, float], exclusive: bool, floor: float) -> dict[str, float]:
    """The classes of which the teacher is sure.

    If classes are exclusive, all are given or none; otherwise those that are present or absent with at least that
    probability, and the rest is missing.
    """
    if exclusive:
        best = max(cats, key=cats.__getitem__, default=None)
        return {} if best is None or cats[best] < floor else {name: float(name == best) for name in cats}
    return {name: float(score >= 0.5) for name, score in cats.items() if max(score, 1 - score) >= floor}


def read_soft(doc: Doc, teacher: Teacher) -> SoftTags | None:
    """Unpack the probabilities of entity tags that are stored with a document; None if there are none."""
    return unpack_soft_tags(doc, teacher.tags).get("")
