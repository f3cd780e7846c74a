"""What a head says of annotated documents, and what is right."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import minibatch

from ..pipeline.calibrated import CalibratedComponent
from ..pipeline.gold_spans import characters_of_gold
from ..pipeline.label_sets import annotated_in
from ..tagging import Spans

# Spans that are less probable are no candidates. Models are surer than they should be, so that gold spans are among
# those of 1 in 10,000; lower than this, there are ever more candidates and hardly more gold.
FLOOR = 1e-6
BATCH = 128


@dataclass(frozen=True)
class Evidence:
    """All candidates of a head in some documents.

    labels (tuple[str, ...]): Of the head.
    gold (ndarray[int64]): How many gold spans each document has with each label; shape (documents, labels).
    unknown (int): Gold spans with labels that the head does not have; they are in nothing else.
    document (ndarray[int64]), label (ndarray[int64]): Of each candidate; shape (candidates,), as of all that follows.
    score (ndarray[float64]): Its probability as the model gives it.
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
        """Some of the candidates, of the same documents.

        chosen (ndarray[bool]): Which.
        """
        parts = (self.document, self.label, self.score, self.right, self.best)
        return Evidence(self.labels, self.gold, self.unknown, *(part[chosen] for part in parts))

    @property
    def written(self) -> "Evidence":
        """The best ones alone."""
        return self.where(self.best)


def gather(
    nlp: Language, heads: Iterable[str], examples: Iterable[Example], least: float | None = FLOOR
) -> dict[str, Evidence]:
    """What heads say of documents, before any calibration they have.

    heads (Iterable[str]): The names of `sequence_labeler`s and `span_labeler`s.
    examples (Iterable[Example]): A document is left out for heads whose annotation it has not.
    least (float | None): The probability of a candidate at the least; None: only spans that are written.
    RETURNS (dict): By head.
    """
    heads = list(heads)
    parts: dict[str, list[Evidence]] = {name: [] for name in heads}
    for batch in minibatch(examples, BATCH):
        with nlp.select_pipes(disable=heads):
            docs = list(nlp.pipe(example.predicted for example in batch))
        for name in heads:
            pipe = nlp.get_pipe(name)
            assert isinstance(pipe, CalibratedComponent)
            gold = [characters_of_gold(example.reference, pipe.spans_key) for example in batch]
            judged = annotated_in((example.reference for example in batch), pipe.labels)
            rows = [
                (doc, spans, known) for doc, spans, known in zip(docs, gold, judged, strict=True) if spans is not None
            ]
            if rows:
                docs_of, gold_of, judged_of = zip(*rows, strict=True)
                parts[name].append(_evidence(pipe, docs_of, gold_of, judged_of, least))
    return {name: _joined(found) for name, found in parts.items() if found}


def _evidence(
    pipe: CalibratedComponent,
    docs: tuple[Doc, ...],
    gold: tuple[set[tuple[int, int, str]], ...],
    judged: tuple[np.ndarray, ...],
    least: float | None,
) -> Evidence:
    """Of one batch.

    judged (tuple[ndarray[bool], ...]): The labels that each document was annotated for: of others none is right or
        wrong.
    """
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
    found = pipe.find(docs, least)
    every = found.spans if found.candidates is None else found.candidates
    others = every.where(~np.isin(_keys(every, labels), _keys(found.spans, labels)))
    start, end, label, score = (
        np.concatenate([getattr(found.spans, part), getattr(others, part)])
        for part in ("start", "end", "label", "score")
    )
    document = np.searchsorted(found.first, start, side="right") - 1
    offset = found.first[document]
    rows = zip(document.tolist(), (start - offset).tolist(), (end - offset).tolist(), label.tolist(), strict=True)
    right = [
        (docs[i][first].idx, docs[i][last - 1].idx + len(docs[i][last - 1]), labels[j]) in gold[i]
        for i, first, last, j in rows
    ]
    best = np.arange(len(start)) < len(found.spans)
    found_here = (document, label, score.astype(np.float64), np.array(right, bool), best)
    return Evidence(labels, counts, unknown, *found_here).where(np.array(judged)[document, label])


def _keys(spans: Spans, labels: tuple[str, ...]) -> np.ndarray:
    """One number a span."""
    return (spans.start << 32 | (spans.end - spans.start)) * len(labels) + spans.label


def _joined(parts: list[Evidence]) -> Evidence:
    firsts = np.cumsum([0, *(len(part.gold) for part in parts)])
    document = np.concatenate([part.document + first for part, first in zip(parts, firsts, strict=False)])
    rest = (np.concatenate([getattr(part, name) for part in parts]) for name in ("label", "score", "right", "best"))
    gold = np.concatenate([part.gold for part in parts])
    return Evidence(parts[0].labels, gold, sum(part.unknown for part in parts), document, *rest)
