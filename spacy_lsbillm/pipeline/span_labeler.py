"""The `span_labeler` component: spans that may be nested or overlap, each scored separately for each label."""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example, validate_examples
from spacy.vocab import Vocab
from thinc.api import Config, Model, Ops
from thinc.types import Floats3d

from ..alignment import is_word
from ..errors import SettingError
from ..layers import score_blocks
from ..tagging import Spans
from ..values import is_number, is_whole
from .calibrated import CalibratedComponent
from .gold_spans import AlignedSpans, aligned_spans
from .labeler_settings import check_calibrated
from .span_scorers import DEFAULT_KEY, span_labeler_score
from .span_writing import Predicted, by_document, write_group
from .whole_batch import whole_batch

DEFAULT_CONFIG = Config().from_str(
    """
[span_labeler]
spans_key = "sc"
max_length = null
threshold = 0.5
calibrated = true
negatives = null

[span_labeler.scorer]
@scorers = "spacy-lsbillm.span_labeler_scorer.v1"

[span_labeler.model]
@architectures = "spacy-lsbillm.SpanLabeler.v1"
hidden_size = 64
block_size = 1000000
nO = null

[span_labeler.model.tok2vec]
@architectures = "spacy-transformers.TransformerListener.v1"
grad_factor = 1.0
upstream = "*"

[span_labeler.model.tok2vec.pooling]
@layers = "reduce_mean.v1"
"""
)["span_labeler"]


@Language.factory(
    "span_labeler",
    assigns=["doc.spans"],
    default_config=DEFAULT_CONFIG,
    default_score_weights={"spans_sc_f": 1.0, "spans_sc_p": 0.0, "spans_sc_r": 0.0, "spans_sc_per_type": None},
)
def make_span_labeler(
    nlp: Language,
    name: str,
    model: Model[list[Doc], list[Floats3d]],
    spans_key: str,
    max_length: int | None,
    threshold: float,
    calibrated: bool,
    negatives: float | None,
    scorer: Callable[..., dict[str, Any]] | None,
) -> "SpanLabeler":
    """Create a `span_labeler`.

    model (Model): From `spacy-lsbillm.SpanLabeler.v1`.
    spans_key (str): Learn from and write to `doc.spans[spans_key]`.
    max_length (int | None): Maximum number of words in a span; None: that of the longest span in the training corpus.
    threshold (float): Write the spans with at least this probability.
    calibrated (bool): Apply the results of `calibrate`, if there are any.
    negatives (float | None): How many spans without a label are in the loss per span with one; None: all.
    scorer (Callable | None): Scores the component in `spacy evaluate`.
    """
    made = SpanLabeler(
        nlp.vocab,
        model,
        name,
        spans_key=spans_key,
        max_length=max_length,
        threshold=threshold,
        calibrated=calibrated,
        negatives=negatives,
        scorer=scorer,
    )
    made.meta = nlp.meta
    return made


class SpanLabeler(CalibratedComponent):
    """A component that finds spans that may be nested or overlap.

    Each label of each span up to a maximum length has its own probability, and those that are probable enough are
    written, in the order of the text.

    The scores of spans are these probabilities, in `doc.spans[spans_key].attrs["scores"]`. The results of
    `spacy lsbillm calibrate` are applied to them.
    """

    unit = "spans"
    found_in_training = ("max_length",)

    def __init__(
        self,
        vocab: Vocab,
        model: Model[list[Doc], list[Floats3d]],
        name: str = "span_labeler",
        *,
        spans_key: str = DEFAULT_KEY,
        max_length: int | None = None,
        threshold: float = 0.5,
        calibrated: bool = True,
        negatives: float | None = None,
        scorer: Callable[..., dict[str, Any]] | None = span_labeler_score,
    ) -> None:
        _check_settings(name, spans_key, max_length, threshold, negatives)
        check_calibrated(name, calibrated)
        super().__init__(vocab, model, name, {"spans_key": spans_key, "max_length": max_length}, scorer)
        # Not saved with the labels: those of the config count.
        self.threshold = threshold
        self.calibrated = calibrated
        self.negatives = negatives
        # The lengths in words of examined gold spans; and whether a warning about too long ones was given in scoring.
        self._lengths: list[int] = []
        self._too_long = False

    @property
    def max_length(self) -> int | None:
        """Maximum number of words in a span; None: not known before `initialize`."""
        return self.cfg["max_length"]

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """Collect the labels and the length of the longest span, and set the size of the model.

        get_examples (Callable): The training corpus, which is read once completely.
        labels (Sequence[str] | None): The labels; None: those in the corpus, sorted.
        RAISES (SettingError): There are no labels, or an empty one; there is no span to take `max_length` from; or the
            model's `nO` is not the number of labels.
        """
        # A calibration would be of other weights.
        self._forget_calibration()
        self._lengths = []
        sample = self._collect_labels(get_examples, nlp, labels)
        if self.max_length is None:
            if not self._lengths:
                raise SettingError(
                    f"max_length of {self.name!r} is null, but no document of the training corpus has a span in "
                    f"doc.spans[{self.spans_key!r}] to determine it. Set a number of words, "
                    f"components.{self.name}.max_length."
                )
            self.cfg["max_length"] = max(self._lengths)
        self._warn_of_length("of the training corpus", "are left out of the loss")
        self._lengths = []
        model, n_labels = self.model, len(self.labels)
        if model.has_dim("nO") and model.get_dim("nO") != n_labels:
            raise SettingError(
                f"nO = {model.get_dim('nO')} does not fit {self.name!r}: it has {n_labels} labels. Use null, so that "
                f"it is set to that."
            )
        model.set_dim("nO", n_labels)
        model.set_dim("nL", self.max_length)
        model.initialize(X=sample)

    def find(self, docs: Sequence[Doc], least: float | None = None) -> Predicted:
        """Find the spans with a model probability of at least `threshold`.

        They are in the order of their starts, then of their ends.
        """
        docs = list(docs)
        sizes = np.array([len(doc) for doc in docs], dtype=np.int64)
        first = np.cumsum(sizes) - sizes
        words = np.flatnonzero(np.concatenate([np.zeros(0, dtype=bool), *map(is_word, docs)]))
        ops = self.model.ops
        written = _logit(self.threshold)
        lowest = written if least is None else min(written, _logit(least))
        # Columns: the first word, the label, the last word; and the scores.
        places, scores = [np.zeros((0, 3), dtype=np.int64)], [np.zeros(0, dtype="f")]
        for at, block in score_blocks(self.model, docs):
            begin, label, longer = ops.xp.nonzero(block >= lowest)
            scores.append(ops.to_numpy(block[begin, label, longer]))
            places.append(ops.to_numpy(ops.xp.stack([begin + at, label, begin + at + longer], axis=1)))
        found_places, score = np.concatenate(places), np.concatenate(scores)
        order = np.lexsort((found_places[:, 1], found_places[:, 2], found_places[:, 0]))
        begin, label, last = found_places[order].T
        score = score[order]
        spans = Spans(words[begin], words[last] + 1, label, ops.to_numpy(ops.sigmoid(ops.asarray1f(score))))
        others = None if least is None else spans.where(score >= _logit(least))
        return Predicted(spans.where(score >= written), first, others)

    def set_annotations(self, docs: Sequence[Doc], predicted: Predicted) -> None:
        """Write the predicted spans to documents, in place of existing ones of the group."""
        for doc, spans, scores in by_document(docs, predicted.spans, predicted.first, self.labels):
            write_group(doc, self.cfg["spans_key"], spans, scores)
        self._write_candidates(docs, predicted)

    def get_loss(self, examples: Iterable[Example], scores: list[Floats3d]) -> tuple[float, list[Floats3d]]:
        """Compute the loss and its gradient: binary cross-entropy for each label of each span.

        These are left out: documents without annotation, spans whose first or last token does not align with the gold
        tokens, spans with an unknown label or of more than `max_length` words, and if `negatives` is set most of the
        spans without a label.

        The gradient is that of the sum over spans and labels, in the mean over words, times the number of documents, so
        that this component and one with a single gradient per document, such as `textcat`, have a similar weight in
        their shared transformer.

        examples (Iterable[Example]): The batch.
        scores (list[Floats3d]): The model's output.
        RETURNS (tuple[float, list[Floats3d]]): The mean loss per word, and the gradient.
        """
        examples = list(examples)
        validate_examples(examples, "SpanLabeler.get_loss")
        joined = self.model.ops.xp.concatenate(scores)
        gold, counted = self._gold_of(examples)
        docs, words = self._counted(examples)
        loss, gradient = _cross_entropy(self.model.ops, joined, gold, counted)
        cuts = np.cumsum([len(rows) for rows in scores])[:-1].tolist()
        return loss / max(words, 1), self.model.ops.xp.split(gradient * (docs / max(words, 1)), cuts)

    def _gold_of(self, examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
        """The gold spans of a batch.

        RETURNS (tuple[ndarray[int64], ndarray[bool]]): The first word, label and length minus 1 of gold spans, one row
            each; and whether a span counts in the loss, shape (words, max_length). Words are numbered through all
            examples.
        """
        longest, known = self.model.get_dim("nL"), {label: i for i, label in enumerate(self.labels)}
        gold: list[tuple[int, int, int]] = []
        unknown: list[tuple[int, int]] = []
        new: dict[str, Example] = {}
        parts = [np.zeros((0, longest), dtype=bool)]
        at = 0
        for example in examples:
            self._warn_of_white_space(example.reference)
            word = is_word(example.predicted)
            aligned = aligned_spans(example, self.spans_key)
            parts.append(_known(word, aligned, longest))
            number = at + np.cumsum(word) - 1
            for span in aligned.spans if aligned is not None else ():
                first, longer = int(number[span.start]), int(number[span.end - 1] - number[span.start])
                if span.label_ not in known and span.label_ not in self._left_out:
                    new.setdefault(span.label_, example)
                if longer >= longest:
                    continue
                if span.label_ in known:
                    gold.append((first, known[span.label_], longer))
                else:
                    unknown.append((first, longer))
            at += len(parts[-1])
        if new:
            self._warn_of_left_out(new)
        cells, counted = np.array(gold, dtype=np.int64).reshape(-1, 3), np.concatenate(parts)
        counted[tuple(np.array(unknown, dtype=np.int64).reshape(-1, 2).T)] = False
        labelled = np.zeros_like(counted)
        labelled[cells[:, 0], cells[:, 2]] = True
        return cells, labelled | _drawn(counted & ~labelled, self.negatives, int(labelled.sum()))

    def _counted(self, examples: Sequence[Example]) -> tuple[int, int]:
        """The number of documents in the whole batch, and of words in those with annotation.

        examples (Sequence[Example]): The examples of the update.
        """
        batch = whole_batch()
        batch = examples if batch is None else batch
        annotated = [example.predicted for example in batch if self.spans_key in example.reference.spans]
        return len(batch), sum(int(is_word(doc).sum()) for doc in annotated)

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """Score a batch of examples.

        Warn once of gold labels that the component does not have, and of gold spans that are too long for it.
        """
        self._lengths = []
        scores = super().score(examples, **kwargs)
        if not self._too_long:
            self._too_long = self._warn_of_length("that are scored", "count as missed")
        return scores

    def _see_gold(self, example: Example, gold: list[Span]) -> None:
        words = np.concatenate([[0], np.cumsum(is_word(example.reference))])
        self._lengths += [int(words[span.end] - words[span.start]) for span in gold]

    _see_scored = _see_gold

    def _warn_of_length(self, which: str, fate: str) -> bool:
        """Warn of gold spans that are too long. RETURNS (bool): Whether there were any."""
        lengths, longest = self._lengths, self.max_length or 0
        longer = sum(length > longest for length in lengths)
        if longer:
            warnings.warn(
                f"{longer} of the {len(lengths)} gold spans {which} have more than max_length = {longest} words of "
                f"{self.name!r}, and {fate}: max_length = {max(lengths)} would include all.",
                stacklevel=3,
            )
        return longer > 0

    def _check_read(self, exclude: Iterable[str]) -> None:
        """Check the settings that were read. RAISES (ValueError): They are missing, or do not fit the model."""
        _check_settings(self.name, self.cfg["spans_key"], self.cfg["max_length"], self.threshold, self.negatives)
        self._check_calibration()
        model = self.model
        if "model" in exclude or not model.has_param("length"):
            return
        sizes = model.get_dim("nO"), model.get_dim("nL")
        if sizes != (len(self.labels), self.max_length):
            raise ValueError(
                f"its model has {sizes[0]} labels and spans of {sizes[1]} words, its settings have {len(self.labels)} "
                f"and {self.max_length}"
            )


def _check_settings(name: str, spans_key: Any, max_length: Any, threshold: Any, negatives: Any) -> None:
    """Validate the settings. RAISES (SettingError): One of them is not allowed."""
    if not isinstance(spans_key, str) or not spans_key:
        raise SettingError(
            f"spans_key = {spans_key!r} of {name!r} is not allowed: it must be a name, for doc.spans[name]. Entities, "
            f"which cannot overlap, are for a sequence_labeler."
        )
    if max_length is not None and not (is_whole(max_length) and max_length >= 1):
        raise SettingError(
            f"max_length = {max_length!r} of {name!r} is not allowed: it must be a whole number of words from 1 on, or "
            f"null for the longest span of the training corpus."
        )
    if not (is_number(threshold) and 0 <= threshold <= 1):
        raise SettingError(f"threshold = {threshold!r} of {name!r} is not allowed: it must be a number from 0 to 1.")
    if negatives is not None and not (is_number(negatives) and negatives > 0):
        raise SettingError(
            f"negatives = {negatives!r} of {name!r} is not allowed: it must be a number above 0 (spans without a label "
            f"that are in the loss for each one with a label) or null for all."
        )


def _known(word: np.ndarray, gold: AlignedSpans | None, longest: int) -> np.ndarray:
    """Whether the gold document determines the spans of a document, shape (words, max_length).

    word (ndarray[bool]): Which tokens are not white space.
    """
    n_words = int(word.sum())
    if gold is None:
        return np.zeros((n_words, longest), dtype=bool)
    fits = np.concatenate([gold.fits[word], np.zeros(longest, dtype=bool)])
    # No span continues after the last word.
    return fits[:n_words, None] & np.lib.stride_tricks.sliding_window_view(fits, longest)[:n_words]


def _drawn(unlabelled: np.ndarray, negatives: float | None, labelled: int) -> np.ndarray:
    """The unlabelled spans that count in the loss: all, or a random sample.

    A sample has `negatives` per labelled span; in a batch without labelled spans as many as for one.

    unlabelled (ndarray[bool]): Shape (words, max_length).
    """
    if negatives is None:
        return unlabelled
    others = np.flatnonzero(unlabelled)
    size = min(len(others), math.ceil(negatives * max(labelled, 1)))
    drawn = np.zeros(unlabelled.size, dtype=bool)
    # numpy's own generator is the one that spaCy seeds.
    drawn[np.random.choice(others, size, replace=False)] = True
    return drawn.reshape(unlabelled.shape)


def _cross_entropy(ops: Ops, scores: Floats3d, gold: np.ndarray, counted: np.ndarray) -> tuple[float, Floats3d]:
    """The sum over all labels of the spans that count, and its gradient.

    scores (Floats3d): Shape (words, labels, max_length).
    gold (ndarray[int64]): First word, label and length minus 1 of gold spans, one row each.
    counted (ndarray[bool]): Shape (words, max_length).
    """
    xp = ops.xp
    truth = xp.zeros(scores.shape, dtype="f")
    truth[tuple(xp.asarray(column) for column in gold.T)] = 1.0
    rows, lengths = (xp.asarray(places) for places in np.nonzero(counted))
    chosen_scores, right = scores[rows, :, lengths], truth[rows, :, lengths]
    gradient = xp.zeros_like(truth)
    gradient[rows, :, lengths] = ops.sigmoid(chosen_scores) - right
    return float((xp.logaddexp(0, chosen_scores) - chosen_scores * right).sum()), gradient


def _logit(probability: float) -> float:
    """The score that corresponds to a probability.

    For 0 it is the lowest finite float, which each span of a document reaches.
    """
    if probability in (0, 1):
        return math.inf if probability else float(np.finfo("f").min)
    return math.log(probability / (1 - probability))
