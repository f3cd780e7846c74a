"""The `sequence_labeler` component: spans from one tag a token, trained with cross-entropy."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from spacy.language import Language
from spacy.scorer import get_ner_prf
from spacy.tokens import Doc, Span
from spacy.training import Example, validate_examples
from spacy.vocab import Vocab
from thinc.api import Config, Model
from thinc.types import Floats2d

from ..alignment import is_word
from ..errors import SettingError, in_short
from ..layers import CROSS_ENTROPY, LossSettings, softmax_loss
from ..tagging import (
    Calibration,
    Scheme,
    Spans,
    around_spans,
    best_tags,
    calibration_error,
    candidates,
    tag_marginals,
)
from ..tagging.scheme import MISSING, OUTSIDE, check_scheme
from ..values import is_flag, is_number
from .gold_spans import (
    characters_of_gold,
    check_overlap,
    gold_tags,
    name_of,
    named,
    overlapping,
    score_group,
    with_trimmed_spans,
)
from .soft_tags import SoftTags, most_probable, soft_tags_of, write_soft_tags
from .span_component import SpanComponent
from .span_writing import SCORES, Predicted, by_document, scores_of_entities, write_entities, write_group
from .whole_batch import whole_batch

DEFAULT_CONFIG = Config().from_str(
    """
[sequence_labeler]
scheme = "biluo"
spans_key = null
scores = true
threshold = null
calibrated = true
class_weights = null
focal_gamma = 0.0
label_smoothing = 0.0

[sequence_labeler.scorer]
@scorers = "spacy-lsbillm.sequence_labeler_scorer.v1"

[sequence_labeler.model]
@architectures = "spacy-lsbillm.SequenceLabeler.v1"
nO = null

[sequence_labeler.model.tok2vec]
@architectures = "spacy-transformers.TransformerListener.v1"
grad_factor = 1.0
upstream = "*"

[sequence_labeler.model.tok2vec.pooling]
@layers = "reduce_mean.v1"
"""
)["sequence_labeler"]


@Language.factory(
    "sequence_labeler",
    assigns=["doc.ents", "doc.spans", f"doc._.{SCORES}"],
    default_config=DEFAULT_CONFIG,
    default_score_weights={"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None},
)
def make_sequence_labeler(
    nlp: Language,
    name: str,
    model: Model[list[Doc], list[Floats2d]],
    scheme: str,
    spans_key: str | None,
    scores: bool,
    threshold: float | dict[str, float] | None,
    calibrated: bool,
    class_weights: str | dict[str, float] | None,
    focal_gamma: float,
    label_smoothing: float,
    scorer: Callable[..., dict[str, Any]] | None,
) -> "SequenceLabeler":
    """Make the component.

    model (Model): From `spacy-lsbillm.SequenceLabeler.v1`.
    scheme (str): "biluo" or "iob2".
    spans_key (str | None): Write to and learn from `doc.spans[spans_key]`; None: `doc.ents`.
    scores (bool): Write the probabilities of spans.
    threshold (float | dict | None): Leave out spans whose probability is below it: a number, or one a label, which are
        those that have one; None: as the calibration says, if there is one.
    calibrated (bool): Apply what `calibrate` has found, if it has.
    class_weights (str | dict | None): How much tokens in spans with each label count in the loss: "balanced", inversely
        to the number of spans, or a table by label, "O" for tokens outside of spans; None: all the same.
    focal_gamma (float): Focal loss, see `layers.class_loss`; 0: none.
    label_smoothing (float): The share of the truth that is spread over all tags.
    scorer (Callable | None): How `spacy evaluate` scores it.
    """
    return SequenceLabeler(
        nlp.vocab,
        model,
        name,
        scheme=scheme,
        spans_key=spans_key,
        scores=scores,
        threshold=threshold,
        calibrated=calibrated,
        loss=LossSettings(class_weights, focal_gamma, label_smoothing),
        scorer=scorer,
    )


def make_sequence_labeler_scorer() -> Callable[..., dict[str, Any]]:
    """spaCy's own scores of entities or of spans, as the component writes them."""
    return sequence_labeler_score


def sequence_labeler_score(examples: Iterable[Example], spans_key: str | None = None, **kwargs: Any) -> dict[str, Any]:
    """Precision, recall and F1 of spans with their labels, micro-averaged and per label, and the expected calibration
    error of their scores. White space at the ends of gold spans does not count."""
    examples = [with_trimmed_spans(example, spans_key) for example in examples]
    error = calibration_error(*scores_and_truth(examples, spans_key))
    if spans_key is None:
        return {**get_ner_prf(examples, **kwargs), "ents_ece": error}
    return {**score_group(examples, spans_key, **kwargs), f"spans_{spans_key}_ece": error}


class SequenceLabeler(SpanComponent):
    """Finds spans that do not overlap: each token gets a tag, and the tags of a document are the best well-formed
    sequence.

    The scores of spans are their probabilities: the share of all well-formed sequences of tags that have the span, each
    as probable as its tags. They are in `doc.spans[spans_key].attrs["scores"]`, or in `ent._.ent_score`;
    `doc._.ent_scores` are those of `doc.ents`. What `spacy lsbillm calibrate` has found is applied to them.
    """

    unit = "tokens"

    def __init__(
        self,
        vocab: Vocab,
        model: Model[list[Doc], list[Floats2d]],
        name: str = "sequence_labeler",
        *,
        scheme: str = "biluo",
        spans_key: str | None = None,
        scores: bool = True,
        threshold: float | dict[str, float] | None = None,
        calibrated: bool = True,
        loss: LossSettings = CROSS_ENTROPY,
        scorer: Callable[..., dict[str, Any]] | None = sequence_labeler_score,
    ) -> None:
        check_scheme(scheme)
        check_confidence(name, scores, threshold, calibrated)
        super().__init__(vocab, model, name, {"scheme": scheme, "spans_key": spans_key}, scorer)
        # Settings of prediction: those of the config count, not those that were saved with the labels.
        self.scores = scores
        self.threshold = threshold
        self.calibrated = calibrated
        # How many tags of a token it tells in `doc.user_data`, for another head to learn from: see `soft_tags`.
        self.top_tags = 0
        # Of training.
        self.loss = loss
        # How many gold spans have each label, while labels are collected.
        self._counts: Counter[str] = Counter()
        # Whether spans that overlap were warned of.
        self._overlapped = False

    @property
    def scheme(self) -> Scheme:
        """The tags, by number."""
        return Scheme(self.cfg["scheme"], self.labels)

    @property
    def calibration(self) -> Calibration | None:
        """What `calibrate` has found, whether it is applied or not."""
        found = self.cfg.get("calibration")
        return None if found is None else Calibration.from_dict(found)

    @calibration.setter
    def calibration(self, found: Calibration | None) -> None:
        self.cfg.pop("calibration", None)
        if found is not None:
            self.cfg["calibration"] = found.as_dict()

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """Collect the labels and give the model its size.

        get_examples (Callable): The training corpus; it is read once to the end.
        labels (Sequence[str] | None): The labels; None: those that the corpus has, sorted.
        RAISES (SettingError): There are no labels, or an empty one; spans of a document overlap; or the model's `nO` is
            another number than that of the tags.
        """
        # It was of other weights.
        self.calibration = None
        self._counts.clear()
        sample = self._collect_labels(get_examples, nlp, labels)
        if self.loss.class_weights is not None:
            counts = [self._counts[label] for label in self.labels]
            self.cfg["class_weights"] = self.loss.weights(
                self._classes, [*counts, *self._outside(counts)], repr(self.name)
            )
        output, n_tags = self.model.get_ref("output_layer"), self.scheme.n_tags
        if output.has_dim("nO") and output.get_dim("nO") != n_tags:
            raise SettingError(
                f"nO = {output.get_dim('nO')} does not fit {self.name!r}: {len(self.labels)} labels in the scheme "
                f"{self.scheme.name!r} are {n_tags} tags. Use null, so that it is set to that."
            )
        output.set_dim("nO", n_tags)
        self.model.initialize(X=sample)

    def _see_gold(self, example: Example, gold: list[Span]) -> None:
        check_overlap(gold, example.reference, self.name)
        self._counts.update(span.label_ for span in gold)

    def predict(self, docs: Sequence[Doc]) -> Predicted:
        """The best well-formed tags of the words of all documents, as spans. Tokens of white space have no tag: a span
        goes on across them, and never begins or ends with one."""
        calibration = self.calibration if self.calibrated and self.scores else None
        least = None if calibration is None else calibration.candidates_from
        predicted = self.find(docs, min(least.values()) if least else None)
        spans, found = predicted.spans, predicted.candidates
        if calibration is not None:
            spans = _with_probabilities(spans, calibration, self.labels)
            if found is not None:
                assert least is not None
                found = found.where(found.score >= self._least(least)[found.label])
                found = _with_probabilities(found, calibration, self.labels)
        threshold = self.threshold
        if threshold is None and calibration is not None:
            threshold = calibration.threshold
        if threshold:
            spans = spans.where(spans.score >= self._least(threshold)[spans.label])
        return replace(predicted, spans=spans, candidates=found)

    def find(self, docs: Sequence[Doc], least: float | None = None) -> Predicted:
        """The spans as the model gives them, before calibration and thresholds.

        least (float | None): Also all candidates of at least this probability; None: no candidates.
        """
        docs = list(docs)
        lengths = np.array([len(doc) for doc in docs], dtype=np.int64)
        first = np.cumsum(lengths) - lengths
        if not lengths.sum():
            nothing = np.zeros(0, dtype=np.int64)
            empty = Spans(nothing, nothing, nothing, nothing.astype("f"))
            return Predicted(empty, first, None if least is None else empty)
        word = [is_word(doc) for doc in docs]
        words = np.flatnonzero(np.concatenate(word))
        log_probs = self.model.ops.to_numpy(_log_softmax(self.model, self.model.predict(docs)))[words]
        scheme, lengths = self.scheme, np.array([found.sum() for found in word])
        tags = best_tags(log_probs, lengths, scheme)
        chosen = log_probs[np.arange(len(tags)), tags]
        if self.scores:
            around = around_spans(log_probs, lengths, scheme)
            spans = scheme.spans(tags, chosen, around.before, around.after)
        else:
            spans = scheme.spans(tags, chosen)
        found = None if least is None else candidates(log_probs, lengths, scheme, least)
        soft = None
        if self.top_tags:
            marginals = tag_marginals(log_probs, lengths, scheme)
            soft = most_probable(marginals, self.top_tags, scheme, words, sum(map(len, word)))
        return Predicted(_on(words, spans), first, None if found is None else _on(words, found), soft)

    def _least(self, threshold: float | dict[str, float]) -> np.ndarray:
        """The threshold of each label.

        RAISES (SettingError): One is of a label that there is not.
        """
        if not isinstance(threshold, dict):
            return np.full(len(self.labels), threshold)
        unknown = sorted(set(threshold) - set(self.labels))
        if unknown:
            raise SettingError(
                f"threshold of {self.name!r} names labels that it does not have: {in_short(unknown)}. It has: "
                f"{in_short(self.labels)}."
            )
        return np.array([threshold.get(label, 0.0) for label in self.labels])

    def set_annotations(self, docs: Sequence[Doc], predicted: Predicted) -> None:
        """Write the spans. Entities that a document has already are kept, and what overlaps them is left out."""
        if predicted.soft is not None:
            write_soft_tags(docs, self.spans_key, predicted.soft)
        for doc, found, scores in by_document(docs, predicted.spans, predicted.first, self.labels):
            written = scores if self.scores else None
            if self.spans_key is None:
                write_entities(doc, found, written)
            else:
                write_group(doc, self.spans_key, found, written)
        if predicted.candidates is not None:
            calibration = self.calibration
            assert calibration is not None and calibration.candidates_key is not None
            for doc, found, scores in by_document(docs, predicted.candidates, predicted.first, self.labels):
                write_group(doc, calibration.candidates_key, found, scores)

    def get_loss(self, examples: Iterable[Example], scores: list[Floats2d]) -> tuple[float, list[Floats2d]]:
        """Cross-entropy. Tokens without annotation and those of white space have none. Where another head has told how
        probable it finds the tags of a document (`soft_tags`), that is the truth: distillation (Hinton et al., 2015,
        section 2, at a temperature of 1).

        The gradient is that of the mean over tokens, times the documents: beside a component with one gradient a
        document, such as `textcat`, neither drowns the other in their shared transformer.

        examples (Iterable[Example]): The batch.
        scores (list[Floats2d]): The model's output.
        RETURNS (tuple[float, list[Floats2d]]): The mean loss of a token, and the gradient.
        RAISES (SettingError): What was told is of other tags, or the settings of the loss are for one true tag a token.
        """
        examples = list(examples)
        validate_examples(examples, "SequenceLabeler.get_loss")
        known = {label: i for i, label in enumerate(self.labels)}
        scheme = self.scheme
        numbers: list[int] = []
        new: dict[str, Example] = {}
        soft: list[tuple[int, SoftTags]] = []
        for example in examples:
            told = soft_tags_of(example, self.spans_key, scheme, self.name)
            if told is not None:
                soft.append((len(numbers), told))
                numbers += [MISSING] * len(example.predicted)
                continue
            self._warn_of_white_space(example.reference)
            tags = gold_tags(example, self.spans_key, self.name)
            found = scheme.numbers(tags, known)
            if found.count(MISSING) > tags.count(None):
                for label in sorted({tag[2:] for tag in tags if tag is not None and tag != OUTSIDE}):
                    if label not in known and label not in self._left_out:
                        new.setdefault(label, example)
            numbers += found
        if new:
            self._warn_of_left_out(new)
        xp = self.model.ops.xp
        truth = xp.asarray(numbers, dtype="i")
        rows = xp.flatnonzero(truth != MISSING)
        log_probs = _log_softmax(self.model, scores)
        gradient = xp.zeros_like(log_probs)
        total = 0.0
        if soft:
            total += self._soft_loss(soft, log_probs, gradient)
        if len(rows):
            gradient[rows] = xp.exp(log_probs[rows])
            if self.loss.plain:
                losses = -log_probs[rows, truth[rows]]
                gradient[rows, truth[rows]] -= 1
            else:
                weights = xp.asarray(self._weights_of_tags())[truth[rows]]
                losses, gradient[rows] = softmax_loss(xp, gradient[rows], truth[rows], weights, self.loss)
            total += float(losses.sum())
        docs, tokens = self._counted(examples, len(rows) + sum(told.known for _, told in soft))
        if tokens:
            gradient *= docs / tokens
        ends = np.cumsum([len(rows) for rows in scores])[:-1]
        return total / max(1, tokens), xp.split(gradient, ends.tolist())

    def _soft_loss(self, soft: list[tuple[int, SoftTags]], log_probs: Floats2d, gradient: Floats2d) -> float:
        """The cross-entropy of tokens whose truth are probabilities, summed up.

        soft (list): The number of each document's first token, and what its truth is.
        log_probs (Floats2d): Of all documents; shape (tokens, tags).
        gradient (Floats2d): Is filled.
        """
        if not self.loss.plain:
            raise SettingError(
                f"{self.name!r} learns from probabilities of tags, for which class_weights, focal_gamma and "
                f"label_smoothing are not made. Leave them out."
            )
        xp = self.model.ops.xp
        tokens = xp.asarray(np.concatenate([first + np.flatnonzero(told.counts) for first, told in soft]))
        rows = xp.asarray(np.concatenate([first + told.rows() for first, told in soft]))
        tags = xp.asarray(np.concatenate([told.tags for _, told in soft]).astype(np.int64))
        truth = xp.asarray(np.concatenate([told.probabilities for _, told in soft]).astype(np.float32))
        gradient[tokens] = xp.exp(log_probs[tokens])
        # No tag is told twice of a token.
        gradient[rows, tags] -= truth
        return -float((truth * log_probs[rows, tags]).sum())

    @property
    def _classes(self) -> list[str]:
        """What may be weighted: the labels, and "O" for no span unless a label has that name."""
        return [*self.labels, *([] if OUTSIDE in self.labels else [OUTSIDE])]

    def _outside(self, counts: list[int]) -> list[float]:
        """How often "O" counts as seen: as often as labels are on average, so that "balanced" leaves it alone."""
        return [] if OUTSIDE in self.labels else [sum(counts) / len(counts)]

    def _weights_of_tags(self) -> np.ndarray:
        """The weight of each tag, by number."""
        weights = self.cfg.get("class_weights") or [1.0] * len(self._classes)
        n_labels = len(self.labels)
        outside = weights[n_labels] if len(weights) > n_labels else 1.0
        return np.array([outside, *weights[:n_labels] * len(self.scheme.kinds)], dtype=np.float32)

    def _counted(self, examples: Sequence[Example], tokens: int) -> tuple[int, int]:
        """The documents of the whole batch, and the tokens that have a loss.

        examples (Sequence[Example]): What the component was updated with.
        tokens (int): Of those, the tokens with a loss.
        """
        batch = whole_batch()
        if batch is None:
            return len(examples), tokens
        known, scheme = {label: i for i, label in enumerate(self.labels)}, self.scheme
        counted = 0
        for example in batch:
            told = soft_tags_of(example, self.spans_key, scheme, self.name)
            if told is None:
                numbers = scheme.numbers(gold_tags(example, self.spans_key, self.name), known)
                counted += sum(number != MISSING for number in numbers)
            else:
                counted += told.known
        return len(batch), counted

    def _check_read(self, exclude: Iterable[str]) -> None:
        """RAISES (ValueError): The settings that were read are none, or not those of the model."""
        check_scheme(self.cfg["scheme"])
        if (calibration := self.calibration) is not None:
            for by_label in (calibration.threshold, calibration.candidates_from, calibration.by_label):
                self._least(dict.fromkeys(by_label, 0.0))
        output, n_tags = self.model.get_ref("output_layer"), self.scheme.n_tags
        if "model" not in exclude and output.has_param("W") and output.get_dim("nO") != n_tags:
            raise ValueError(f"its model has {output.get_dim('nO')} tags, its settings have {n_tags}")

    def _see_scored(self, example: Example, gold: list[Span]) -> None:
        """Warn once of gold spans that overlap."""
        if not self._overlapped and (pair := overlapping(gold)) is not None:
            self._overlapped = True
            warnings.warn(
                f"the gold spans {named(pair[0])} and {named(pair[1])} overlap in {name_of(example.reference)}: "
                f"{self.name!r} gives each token one label, so that one of the two counts as missed.",
                stacklevel=3,
            )


def _log_softmax(model: Model, scores: list[Floats2d]) -> Floats2d:
    """Of all documents' scores as one array."""
    xp = model.ops.xp
    joined = xp.concatenate(scores)
    joined = joined - joined.max(axis=1, keepdims=True)
    return joined - xp.log(xp.exp(joined).sum(axis=1, keepdims=True))


def check_confidence(name: str, scores: object, threshold: float | dict[str, float] | None, calibrated: object) -> None:
    """RAISES (SettingError): One of the settings of confidence is not allowed."""
    for setting, value in (("scores", scores), ("calibrated", calibrated)):
        if not is_flag(value):
            raise SettingError(f"{setting} = {value!r} of {name!r} is not allowed. Use true or false.")
    values = threshold.values() if isinstance(threshold, dict) else [] if threshold is None else [threshold]
    if not all(is_number(value) and 0 <= value <= 1 for value in values):
        raise SettingError(
            f"threshold = {threshold!r} of {name!r} is not allowed. Use a number from 0 to 1, a table of such numbers "
            f"by label, or null."
        )
    if threshold is not None and not scores:
        raise SettingError(f"threshold = {threshold!r} of {name!r} needs scores = true: it is compared with them.")


def scores_and_truth(examples: Iterable[Example], spans_key: str | None) -> tuple[np.ndarray, np.ndarray]:
    """The scores of all spans that have one, in documents that have annotation, and whether they are gold spans.

    RETURNS (tuple[ndarray[float64], ndarray[bool]]): A row a span.
    """
    scores: list[float] = []
    right: list[bool] = []
    for example in examples:
        gold = characters_of_gold(example.reference, spans_key)
        if gold is None:
            continue
        doc = example.predicted
        if spans_key is None:
            pairs = [(span, score) for span, score in zip(doc.ents, scores_of_entities(doc), strict=True)]
        else:
            group = doc.spans.get(spans_key, [])
            pairs = list(zip(group, getattr(group, "attrs", {}).get("scores") or [None] * len(group), strict=True))
        for span, score in pairs:
            if score is not None:
                scores.append(score)
                right.append((span.start_char, span.end_char, span.label_) in gold)
    return np.array(scores, dtype=np.float64), np.array(right, dtype=bool)


def _with_probabilities(spans: Spans, calibration: Calibration, labels: tuple[str, ...]) -> Spans:
    return replace(spans, score=calibration.probabilities(spans.score, spans.label, labels))


def _on(words: np.ndarray, spans: Spans) -> Spans:
    """Spans of words as spans of tokens.

    words (ndarray[int64]): The number of each word's token.
    """
    return replace(spans, start=words[spans.start], end=words[spans.end - 1] + 1)
