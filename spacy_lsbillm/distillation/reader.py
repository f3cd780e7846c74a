"""The training corpus of a student: a text with the teacher's annotation, and gold documents."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Corpus, Example

from ..data.documents import tokens_alone
from ..layers.soft_classes import SOFT_CLASSES
from ..values import check_choice
from .gold import check_gold_path
from .settings import FLOOR, check_floor
from .taught import SHARDS, hard_classes, keep_sure, read_soft, read_taught
from .teacher import Teacher

CLASSES = SOFT, HARD, NONE = "soft", "hard", "none"


@dataclass(frozen=True)
class DistilledCorpus:
    """The reader that `spacy-lsbillm.DistilledCorpus.v1` creates.

    Called with a pipeline, it yields gold documents, then those that the teacher annotated.

    shards (Corpus): What the teacher has written.
    """

    teacher: Teacher
    shards: Corpus
    gold: Corpus | None
    floor: float
    classes: str

    def __call__(self, nlp: Language) -> Iterator[Example]:
        """Read the corpus. RAISES (DataError): Data stored with a document do not belong to it."""
        if self.gold is not None:
            yield from self.gold(nlp)
        for stored in self.shards(nlp):
            doc = _taught_part(stored.reference)
            example = Example(stored.predicted, doc)
            soft = read_soft(doc, self.teacher)
            if "" in self.teacher.tags:
                keep_sure(doc, soft, self.floor)
            else:
                # The entities are unknown, which differs from a document without entities.
                doc.set_ents([], default="missing")
            if self.teacher.exclusive is None or self.classes == NONE:
                doc.cats = {}
            else:
                self._classify(example)
            yield example

    def _classify(self, example: Example) -> None:
        doc, exclusive = example.reference, bool(self.teacher.exclusive)
        if self.classes == SOFT:
            probabilities = np.array([doc.cats[name] for name in self.teacher.classes], dtype=np.float32)
            example.predicted.user_data[SOFT_CLASSES] = probabilities
        # spaCy requires each class to be true or false, and a document with exclusive classes to have one.
        doc.cats = hard_classes(doc.cats, exclusive, 0.0 if self.classes == SOFT else self.floor)


def _taught_part(doc: Doc) -> Doc:
    """Copy a document without those parts of the teacher's annotation from which no component learns.

    Components that find them, such as a span_labeler or a tagger, would take all of it for gold.
    """
    found = tokens_alone(doc, doc.vocab)
    found.set_ents([Span(found, ent.start, ent.end, label=ent.label) for ent in doc.ents])
    found.cats, found.user_data = doc.cats, doc.user_data
    return found


def create_distilled_corpus_v1(
    path: Path | None, gold: Path | None = None, floor: float = FLOOR, classes: str = SOFT
) -> Callable[[Language], Iterator[Example]]:
    """Create a reader of what a teacher has annotated.

    A `sequence_labeler` with the teacher's labels and scheme learns from the probabilities of tags, other components
    from hard labels of which the teacher is sure.

    path (Path): The folder `targets` that `lsbillm distill` has written.
    gold (Path | None): Annotated documents to read as well, unchanged: a .spacy file, or a folder of them.
    floor (float): The minimum probability of a hard label; at least 0.5.
    classes (str): "soft": a classifier of `PooledTextCat.v1` learns the teacher's probabilities of classes; "hard":
        classes are 0 or 1 if the teacher is sure, and missing if not; "none": no component learns them.
    RAISES (StorageError): There is no such folder, or it was altered.
    RAISES (SettingError): `floor` or `classes` is not allowed.
    RAISES (DataError): There are no gold documents.
    """
    check_floor(floor)
    check_choice("classes", classes, CLASSES)
    if gold is not None:
        check_gold_path(Path(gold))
    folder = Path(path) if path is not None else Path()
    teacher = read_taught(folder)
    return DistilledCorpus(teacher, Corpus(folder / SHARDS), None if gold is None else Corpus(gold), floor, classes)
