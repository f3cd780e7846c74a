"""Comparing two pipelines on the same documents: scores, agreement, speed and memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from spacy.language import Language
from spacy.scorer import Scorer
from spacy.tokens import Doc
from spacy.training import Example

from ..backbone.int8 import weight_bytes
from ..errors import DataError
from ..layers.shim import BackboneShim

# The pipelines take turns on blocks of this many documents, so that other load on the machine affects both alike.
BLOCK = 64
POINTS = 100


@dataclass(frozen=True)
class Comparison:
    """The results of an exact and a rounded pipeline on the same documents. Pairs are in this order.

    scores (dict): Pairs by name, for the scores that `training.score_weights` counts.
    spans (float | None): F1 of the one's spans against the other's; None if neither finds any.
    classes (float | None): Fraction of documents with the same best class; None if there are no classes.
    words_per_second (tuple): Words per second over all documents.
    speed (float): Speed of the rounded pipeline relative to the exact one: the median over blocks of documents.
    weight_bytes (tuple): Bytes of the bases' weights in memory.
    """

    scores: dict[str, tuple[float, float]]
    spans: float | None
    classes: float | None
    words_per_second: tuple[float, float]
    speed: float
    weight_bytes: tuple[int, int]

    @property
    def loss(self) -> float:
        """The largest loss of a score, in points; negative if all scores improve."""
        return max((exact - rounded) * POINTS for exact, rounded in self.scores.values())


def compare(exact: Language, rounded: Language, examples: Sequence[tuple[Example, Example]]) -> Comparison:
    """Run both pipelines on annotated documents.

    examples (Sequence): Each document twice, created by the one pipeline and by the other.
    RAISES (DataError): There are none, or nothing that the pipeline predicts is annotated.
    """
    if not examples:
        raise DataError("there are no documents to compare the pipelines on.")
    seconds: tuple[list[float], list[float]] = ([], [])
    _run(exact, [one for one, _ in examples[:1]]), _run(rounded, [other for _, other in examples[:1]])
    for start in range(0, len(examples), BLOCK):
        block = examples[start : start + BLOCK]
        sides = [(0, exact), (1, rounded)]
        for side, nlp in sides if start // BLOCK % 2 == 0 else reversed(sides):
            begin = perf_counter()
            docs = _run(nlp, [pair[side] for pair in block])
            seconds[side].append(perf_counter() - begin)
            for pair, doc in zip(block, docs, strict=True):
                pair[side].predicted = doc
    words = sum(len(one.predicted) for one, _ in examples)
    docs_of_both = [(one.predicted, other.predicted) for one, other in examples]
    return Comparison(
        _scores(exact, rounded, examples),
        _spans_agree(docs_of_both),
        _classes_agree(docs_of_both),
        (words / sum(seconds[0]), words / sum(seconds[1])),
        median(one / other for one, other in zip(*seconds, strict=True)),
        (_bytes_of(exact), _bytes_of(rounded)),
    )


def _run(nlp: Language, examples: Sequence[Example]) -> list[Doc]:
    return list(nlp.pipe([example.predicted.copy() for example in examples], batch_size=BLOCK))


def _scores(
    exact: Language, rounded: Language, examples: Sequence[tuple[Example, Example]]
) -> dict[str, tuple[float, float]]:
    """The pairs of scores. RAISES (DataError): No score can be computed."""
    weights = exact.config["training"].get("score_weights") or {}
    counted = [name for name, weight in weights.items() if weight]
    one, other = (Scorer(nlp=nlp).score([pair[side] for pair in examples]) for side, nlp in enumerate((exact, rounded)))
    scores = {
        name: (float(one[name]), float(other[name]))
        for name in counted
        if isinstance(one.get(name), float) and isinstance(other.get(name), float)
    }
    if not any(score for score, _ in scores.values()):
        raise DataError(
            f"none of {', '.join(counted) or 'the scores'} (training.score_weights of the pipeline) is above 0 on "
            f"these documents: are they annotated with what it predicts?"
        )
    return scores


def _spans_agree(docs: Sequence[tuple[Doc, Doc]]) -> float | None:
    shared = found = 0
    for one, other in docs:
        ours, theirs = _spans(one), _spans(other)
        shared += len(ours & theirs)
        found += len(ours) + len(theirs)
    return 2 * shared / found if found else None


def _spans(doc: Doc) -> set[tuple[str, int, int, str]]:
    groups = {"": list(doc.ents), **{key: list(group) for key, group in doc.spans.items()}}
    return {(key, span.start, span.end, span.label_) for key, group in groups.items() for span in group}


def _classes_agree(docs: Sequence[tuple[Doc, Doc]]) -> float | None:
    best = [
        (max(one.cats, key=one.cats.__getitem__), max(other.cats, key=other.cats.__getitem__))
        for one, other in docs
        if one.cats and other.cats
    ]
    return sum(one == other for one, other in best) / len(best) if best else None


def shims_of(nlp: Language) -> dict[str, BackboneShim]:
    """The bases of a pipeline by the names of their components."""
    shims = {}
    for name, pipe in nlp.pipeline:
        for shim in getattr(getattr(pipe, "model", None), "shims", ()):
            if isinstance(shim, BackboneShim):
                shims[name] = shim
    return shims


def _bytes_of(nlp: Language) -> int:
    return sum(weight_bytes(shim.backbone.causal_lm) for shim in shims_of(nlp).values())
