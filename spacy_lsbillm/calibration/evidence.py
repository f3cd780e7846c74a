"""The predictions of heads on annotated documents, and which of them are right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from spacy.tokens import Doc

from ..pipeline.calibrated import CalibratedComponent
from ..pipeline.gold_spans import characters_of_gold
from ..pipeline.label_sets import annotated_in
from ..tagging import Spans

# Less probable spans are not candidates. Models are overconfident, so that gold spans are among those with 1 in 10,000;
# a lower value adds ever more candidates and hardly any gold spans.
FLOOR = 1e-6


@dataclass(frozen=True)
class Evidence:
    """All candidates of a head in some documents.

    labels (tuple[str, ...]): The labels of the head.
    gold (ndarray[int64]): The number of gold spans per document and label; shape (documents, labels). For a classifier:
        1 for its gold classes.
    unknown (int): The number of gold spans with labels that the head does not have; they are counted nowhere else.
    document (ndarray[int64]), label (ndarray[int64]): Document and label of each candidate; shape (candidates,), as all
        that follows.
    score (ndarray[float64]): Its probability by the uncalibrated model.
    right (ndarray[bool]): Whether it is a gold span.
    best (ndarray[bool]): Whether it is one of those that the head writes.
    """

    labels: tuple[str, ...]
    gold: np.ndarray
    unknown: int
    document: np.ndarray
    label: np.ndarray
    score: np.ndarray
    right: np.ndarray
    best: np.ndarray

    def where(self, chosen: np.ndarray) -> "Evidence":
        """A selection of the candidates, with the same documents.

        chosen (ndarray[bool]): True for candidates to keep.
        """
        parts = (self.document, self.label, self.score, self.right, self.best)
        return Evidence(self.labels, self.gold, self.unknown, *(part[chosen] for part in parts))

    @property
    def written(self) -> "Evidence":
        """Only the candidates that the head writes."""
        return self.where(self.best)


def evidence_of_spans(
    pipe: CalibratedComponent,
    docs: Sequence[Doc],
    references: Sequence[Doc],
    least: float | None,
) -> Evidence | None:
    """What a head predicts for documents, without its calibration.

    docs (Sequence[Doc]): Documents as input of the head.
    references (Sequence[Doc]): The annotated documents, in the same order; those without annotation are left out. Spans
        with labels for which a document was not annotated are neither right nor wrong, and left out.
    least (float | None): The minimum probability of a candidate; None: only spans that are written.
    RETURNS (Evidence | None): None if no document has annotation.
    """
    of_all = [characters_of_gold(doc, pipe.spans_key) for doc in references]
    kept = [i for i, spans in enumerate(of_all) if spans is not None]
    if not kept:
        return None
    docs, gold = [docs[i] for i in kept], [of_all[i] or set() for i in kept]
    judged = annotated_in([references[i] for i in kept], pipe.labels)
    labels = pipe.labels
    number = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(docs), len(labels)), dtype=np.int64)
    unknown = 0
    for row, spans in zip(counts, gold, strict=True):
        for *_, name in spans:
            if name in number:
                row[number[name]] += 1
            else:
                unknown += 1
    predicted = pipe.find(docs, least)
    every = predicted.spans if predicted.candidates is None else predicted.candidates
    others = every.where(~np.isin(_keys(every, labels), _keys(predicted.spans, labels)))
    start, end, label, score = (
        np.concatenate([getattr(predicted.spans, part), getattr(others, part)])
        for part in ("start", "end", "label", "score")
    )
    document = np.searchsorted(predicted.first, start, side="right") - 1
    offset = predicted.first[document]
    rows = zip(document.tolist(), (start - offset).tolist(), (end - offset).tolist(), label.tolist(), strict=True)
    right = [
        (docs[i][first].idx, docs[i][last - 1].idx + len(docs[i][last - 1]), labels[j]) in gold[i]
        for i, first, last, j in rows
    ]
    best = np.arange(len(start)) < len(predicted.spans)
    found_here = (document, label, score.astype(np.float64), np.array(right, bool), best)
    return Evidence(labels, counts, unknown, *found_here).where(judged[document, label])


def _keys(spans: Spans, labels: tuple[str, ...]) -> np.ndarray:
    """One number per span, unique to its place and label."""
    return (spans.start << 32 | (spans.end - spans.start)) * len(labels) + spans.label


def joined(parts: Sequence[Evidence]) -> Evidence:
    """The evidence of several batches of documents, in order."""
    firsts = np.cumsum([0, *(len(part.gold) for part in parts)])
    document = np.concatenate([part.document + first for part, first in zip(parts, firsts, strict=False)])
    rest = (np.concatenate([getattr(part, name) for part in parts]) for name in ("label", "score", "right", "best"))
    gold = np.concatenate([part.gold for part in parts])
    return Evidence(parts[0].labels, gold, sum(part.unknown for part in parts), document, *rest)
