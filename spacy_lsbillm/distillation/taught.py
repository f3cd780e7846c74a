"""The folder of what a teacher says of a text: written once, read by each training.

manifest.json, shards/, …   what `annotate` writes
teacher.json                who it was, and what its tags and classes are
files.sha256                the seal over the shards and that
"""

import json
from pathlib import Path

import numpy as np
from spacy.tokens import Doc, Span

from ..errors import StorageError
from ..files import SEAL, check_seal, parse_json, put_in_place, write_seal
from ..pipeline.soft_tags import SoftTags, unpack_soft_tags
from ..pipeline.span_writing import scores_of_entities
from .teacher import Teacher

SHARDS = "shards"
TEACHER = "teacher.json"


def close_taught(folder: Path, teacher: Teacher) -> None:
    """Add who the teacher was to a finished annotation, and seal it. One that is sealed is checked.

    RAISES (StorageError): It was altered since.
    """
    if (folder / SEAL).exists():
        read_taught(folder)
        return
    partial = folder / f"{TEACHER}.partial"
    partial.write_text(json.dumps(teacher.as_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf8")
    put_in_place(partial, folder / TEACHER)
    write_seal(folder, [folder / TEACHER, *(folder / SHARDS).glob("*.spacy")])


def read_taught(folder: Path) -> Teacher:
    """The teacher of a folder of targets.

    RAISES (StorageError): There are none, or they were altered.
    """
    if not (folder / SEAL).is_file():
        raise StorageError(f"{folder} holds no {SEAL}: it is no finished teaching. Make it with `lsbillm distill`.")
    check_seal(folder, "since the teacher was run", "remove the folder and run `lsbillm distill` again")
    try:
        return Teacher.from_dict(parse_json((folder / TEACHER).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{folder / TEACHER} cannot be read ({type(error).__name__}: {error}).") from error


def keep_sure(doc: Doc, soft: SoftTags | None, floor: float) -> None:
    """Leave the entities of which the teacher is sure. Of the others' tokens, and of tokens outside of all entities
    where it is not sure of that, nothing is known: spaCy's missing annotation.

    soft (SoftTags | None): What it says of the tags of entities.
    floor (float): The least probability.
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
    """The classes of which the teacher is sure: of exclusive ones all or none; of others those that are there or not
    there with at least that probability, the rest is missing."""
    if exclusive:
        best = max(cats, key=cats.__getitem__, default=None)
        return {} if best is None or cats[best] < floor else {name: float(name == best) for name in cats}
    return {name: float(score >= 0.5) for name, score in cats.items() if max(score, 1 - score) >= floor}


def read_soft(doc: Doc, teacher: Teacher) -> SoftTags | None:
    """Unpack what is stored with a document; what is said of entities."""
    return unpack_soft_tags(doc, teacher.tags).get("")
