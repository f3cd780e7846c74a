"""The corpus that a student is trained on: what a teacher has said of a text, and gold documents."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from spacy.language import Language
from spacy.training import Corpus, Example

from ..errors import DataError, SettingError
from ..layers.soft_classes import SOFT_CLASSES
from .settings import FLOOR, check_floor
from .taught import SHARDS, hard_classes, keep_sure, read_soft, read_taught
from .teacher import Teacher

SOFT, HARD = "soft", "hard"


@dataclass(frozen=True)
class DistilledCorpus:
    """What `spacy-lsbillm.DistilledCorpus.v1` gives: called with a pipeline, it reads gold documents, then the others.

    shards (Corpus): What the teacher has written.
    """

    teacher: Teacher
    shards: Corpus
    gold: Corpus | None
    floor: float
    classes: str

    def __call__(self, nlp: Language) -> Iterator[Example]:
        """RAISES (DataError): What is stored with a document is not of it."""
        if self.gold is not None:
            yield from self.gold(nlp)
        for example in self.shards(nlp):
            doc = example.reference
            soft = read_soft(doc, self.teacher)
            if "" in self.teacher.tags:
                keep_sure(doc, soft, self.floor)
            else:
                # Nothing is known of entities, which is not that there are none.
                doc.set_ents([], default="missing")
            if self.teacher.exclusive is not None:
                self._classify(example)
            yield example

    def _classify(self, example: Example) -> None:
        doc, exclusive = example.reference, bool(self.teacher.exclusive)
        if self.classes == SOFT:
            told = np.array([doc.cats[name] for name in self.teacher.classes], dtype=np.float32)
            example.predicted.user_data[SOFT_CLASSES] = told
        # spaCy wants each class to be there or not in any case, and a document of exclusive ones to have one.
        doc.cats = hard_classes(doc.cats, exclusive, 0.0 if self.classes == SOFT else self.floor)


def create_distilled_corpus_v1(
    path: Path | None, gold: Path | None = None, floor: float = FLOOR, classes: str = SOFT
) -> Callable[[Language], Iterator[Example]]:
    """Read what a teacher has said of a text. A `sequence_labeler` of the same labels and scheme learns from the
    probabilities of tags, other components from hard labels of which the teacher is sure.

    path (Path): The folder `targets` that `lsbillm distill` has made.
    gold (Path | None): Annotated documents that are read as well, as they are: a .spacy file, or a folder of them.
    floor (float): How probable a hard label must be; at least 0.5.
    classes (str): "soft": a classifier of `PooledTextCat.v1` learns the teacher's probabilities of classes; "hard":
        classes are 0 or 1 where it is sure, and missing where not.
    RAISES (StorageError): There is no such folder, or it was altered.
    RAISES (SettingError): The floor or `classes` is not allowed.
    RAISES (DataError): There are no gold documents.
    """
    check_floor(floor)
    if classes not in (SOFT, HARD):
        raise SettingError(f"classes = {classes!r} is not allowed. Use {SOFT!r} or {HARD!r}.")
    if gold is not None:
        check_gold(Path(gold))
    folder = Path(path) if path is not None else Path()
    teacher = read_taught(folder)
    return DistilledCorpus(teacher, Corpus(folder / SHARDS), None if gold is None else Corpus(gold), floor, classes)


def check_gold(path: Path) -> None:
    """RAISES (DataError): There is no .spacy file there."""
    if not (path.is_file() and path.suffix == ".spacy") and not (path.is_dir() and any(path.rglob("*.spacy"))):
        raise DataError(
            f"--gold {path} is neither a .spacy file nor a folder of them. `lsbillm convert` makes them of IOB, CoNLL "
            f"and JSONL."
        )
