"""The `sequence_labeler` component: spans from one tag per token, trained with cross-entropy or as a CRF."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example, validate_examples
from spacy.vocab import Vocab
from thinc.api import Config, Model
from thinc.types import Floats2d

from ..errors import SettingError
from ..layers import (
    CROSS_ENTROPY,
    LossSettings,
    grow_labeler,
    learn_transitions,
    transitions_of,
)
from ..tagging import (
    Calibration,
    Scheme,
    Spans,
    around_spans,
    best_tags,
    candidates,
    tag_marginals,
)
from ..tagging.scheme import MISSING, check_scheme
from .calibrated import CalibratedComponent
from .gold_spans import (
    check_overlap,
    name_of,
    named,
    overlapping,
)
from .label_weights import add_weight, label_weights, tag_weights
from .labeler_settings import LEARNED, check_confidence, check_spans_key, check_taught, check_transitions
from .soft_tags import has_soft_tags, most_probable, write_soft_tags
from .span_scorers import sequence_labeler_score
from .span_writing import SCORES, Predicted, by_document, write_entities, write_group
from .tag_annotation import TagAnnotation, annotation_of, possible_labels
from .tag_losses import cross_entropy, sequence_loss, soft_cross_entropy
from .tag_scores import WordScores, log_softmax
from .tag_targets import SoftTargets, Taught, soft_targets, targets_of_soft_tags
from .whole_batch import whole_batch

DEFAULT_CONFIG = Config().from_str(
    """
[sequence_labeler]
scheme = "biluo"
transitions = null
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
    transitions: str | None,
    spans_key: str | None,
    scores: bool,
    threshold: float | dict[str, float] | None,
    calibrated: bool,
    class_weights: str | dict[str, float] | None,
    focal_gamma: float,
    label_smoothing: float,
    scorer: Callable[..., dict[str, Any]] | None,
) -> "SequenceLabeler":
    """Create a `sequence_labeler`.

    model (Model): From `spacy-lsbillm.SequenceLabeler.v1`.
    scheme (str): "biluo" or "iob2".
    transitions (str | None): "learned": a CRF, which learns scores of transitions between tags and is trained with the
        likelihood of whole sequences; None: all well-formed sequences are treated alike, and each token is trained
        independently.
    spans_key (str | None): Learn from and write to `doc.spans[spans_key]`; None: `doc.ents`.
    scores (bool): Write the probabilities of spans.
    threshold (float | dict | None): Leave out spans with a lower probability: a number, or a table of numbers by label,
        in which missing labels have no threshold; None: the threshold of the calibration, if there is one.
    calibrated (bool): Apply the results of `calibrate`, if there are any.
    class_weights (str | dict | None): Weights in the loss of tokens in spans with each label: "balanced", inverse to
        the number of spans, or a table by label, with "O" for tokens outside of spans; None: all have the same weight.
    focal_gamma (float): Focal loss, see `layers.class_loss`; 0: off.
    label_smoothing (float): The fraction of the target distribution that is spread over all tags.
    scorer (Callable | None): Scores the component in `spacy evaluate`.
    """
    made = SequenceLabeler(
        nlp.vocab,
        model,
        name,
        scheme=scheme,
        transitions=transitions,
        spans_key=spans_key,
        scores=scores,
        threshold=threshold,
        calibrated=calibrated,
        loss=LossSettings(class_weights, focal_gamma, label_smoothing),
        scorer=scorer,
    )
    made.meta = nlp.meta
    return made


class SequenceLabeler(CalibratedComponent):
    """A component that finds spans that do not overlap.

    Each token gets a tag, and the tags of a document are the most probable well-formed sequence.

    The score of a span is its probability: the fraction of all well-formed tag sequences that contain the span, each
    weighted by the probability of its tags, in a CRF by that of its tags and transitions. Scores are in
    `doc.spans[spans_key].attrs["scores"]`, or in `ent._.ent_score` and, for all of `doc.ents`, in `doc._.ent_scores`.
    The results of `spacy lsbillm calibrate` are applied to them.
    """

    unit = "tokens"
    remedy = "add them (add_label, or spacy-lsbillm.new_labels.v1 in the config), or train a new component"

    def __init__(
        self,
        vocab: Vocab,
        model: Model[list[Doc], list[Floats2d]],
        name: str = "sequence_labeler",
        *,
        scheme: str = "biluo",
        transitions: str | None = None,
        spans_key: str | None = None,
        scores: bool = True,
        threshold: float | dict[str, float] | None = None,
        calibrated: bool = True,
        loss: LossSettings = CROSS_ENTROPY,
        scorer: Callable[..., dict[str, Any]] | None = sequence_labeler_score,
    ) -> None:
        check_scheme(scheme)
        check_transitions(name, transitions, loss)
        check_spans_key(name, spans_key)
        check_confidence(name, scores, threshold, calibrated)
        cfg = {"scheme": scheme, "transitions": transitions, "spans_key": spans_key}
        super().__init__(vocab, model, name, cfg, scorer)
        # Settings of prediction: those of the config count, not those that were saved with the labels.
        self.scores = scores
        self.threshold = threshold
        self.calibrated = calibrated
        # How many tags per token to write to `doc.user_data`, for training another head on them: see `soft_tags`.
        self.top_tags = 0
        # Settings of training.
        self.loss = loss
        # The number of gold spans per label, while labels are collected.
        self._counts: Counter[str] = Counter()
        # Predicts targets where there is no gold annotation.
        self._teacher: Callable[[Sequence[Doc]], Taught] | None = None
        # Whether a warning about overlapping spans was given.
        self._overlapped = False

    @property
    def scheme(self) -> Scheme:
        """The tagging scheme: the labels, and the number of each tag."""
        return Scheme(self.cfg["scheme"], self.labels)

    @property
    def transitions(self) -> np.ndarray | None:
        """The learned scores of transitions, shape (tags + 1, tags + 1); None if transitions are not learned.

        They lead from the tag of the row to the tag of the column; the last row is for the first tags of documents, the
        last column for their last tags.
        """
        learned = transitions_of(self.model)
        return None if learned is None else self.model.ops.to_numpy(learned)

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """Collect the labels and set the size of the model.

        get_examples (Callable): The training corpus, which is read once completely.
        labels (Sequence[str] | None): The labels; None: those in the corpus, sorted.
        RAISES (SettingError): There are no labels, or an empty one; spans of a document overlap; `threshold` or
            `class_weights` names an unknown label; or the model's `nO` is not the number of tags.
        """
        # A calibration would be of other weights.
        self._forget_calibration()
        self._counts.clear()
        sample = self._collect_labels(get_examples, nlp, labels)
        if isinstance(self.threshold, dict):
            self._least(self.threshold)
        if self.loss.class_weights is not None:
            self.cfg["class_weights"] = label_weights(self.loss, self.labels, self._counts, self.name)
        output, n_tags = self.model.get_ref("output_layer"), self.scheme.n_tags
        if output.has_dim("nO") and output.get_dim("nO") != n_tags:
            raise SettingError(
                f"nO = {output.get_dim('nO')} does not fit {self.name!r}: {len(self.labels)} labels in the scheme "
                f"{self.scheme.name!r} are {n_tags} tags. Use null, so that it is set to that."
            )
        output.set_dim("nO", n_tags)
        self.model.initialize(X=sample)
        if self.cfg["transitions"] == LEARNED:
            learn_transitions(self.model, n_tags)

    def _see_gold(self, example: Example, gold: list[Span]) -> None:
        check_overlap(gold, example.reference, self.name)
        self._counts.update(span.label_ for span in gold)

    def _left_out_below(self, calibration: Calibration | None) -> float | dict[str, float] | None:
        """The threshold of the config, else that of the calibration."""
        return super()._left_out_below(calibration) if self.threshold is None else self.threshold

    def find(self, docs: Sequence[Doc], least: float | None = None) -> Predicted:
        """Find the most probable well-formed tags of all documents, as spans, before calibration and thresholds."""
        docs = list(docs)
        lengths = np.array([len(doc) for doc in docs], dtype=np.int64)
        first = np.cumsum(lengths) - lengths
        if not lengths.sum():
            nothing = np.zeros(0, dtype=np.int64)
            empty = Spans(nothing, nothing, nothing, nothing.astype("f"))
            return Predicted(empty, first, None if least is None else empty)
        words = self._scores_of_words(docs)
        log_probs, lengths = words.log_probs, words.lengths
        scheme, transitions = self.scheme, self.transitions
        tags = best_tags(log_probs, lengths, scheme, transitions)
        if self.scores:
            spans = around_spans(log_probs, lengths, scheme, transitions=transitions).spans(tags, log_probs, scheme)
        else:
            spans = scheme.spans(tags, log_probs[np.arange(len(tags)), tags])
        candidate_spans = None if least is None else candidates(log_probs, lengths, scheme, least, transitions)
        soft = None
        if self.top_tags:
            marginals = tag_marginals(log_probs, lengths, scheme, transitions)
            soft = most_probable(marginals, self.top_tags, scheme, words.places, sum(map(len, docs)))
        return Predicted(
            words.on_tokens(spans), first, None if candidate_spans is None else words.on_tokens(candidate_spans), soft
        )

    def _scores_of_words(self, docs: Sequence[Doc]) -> WordScores:
        ops = self.model.ops
        return WordScores.of(docs, ops.to_numpy(log_softmax(ops, self.model.predict(docs))))

    def set_annotations(self, docs: Sequence[Doc], predicted: Predicted) -> None:
        """Write the predicted spans to documents.

        Existing entities are kept, and spans that overlap them are left out.
        """
        if predicted.soft is not None:
            write_soft_tags(docs, self.spans_key, predicted.soft)
        for doc, spans, scores in by_document(docs, predicted.spans, predicted.first, self.labels):
            written = scores if self.scores else None
            if self.spans_key is None:
                write_entities(doc, spans, written)
            else:
                write_group(doc, self.spans_key, spans, written)
        self._write_candidates(docs, predicted)

    def tag_probabilities(self, docs: Sequence[Doc]) -> np.ndarray:
        """Compute the probability of each tag at each token, by forward-backward; 0 for all tags of white space.

        docs (Sequence[Doc]): Documents that the transformer has processed.
        RETURNS (ndarray[float32]): The tokens of all documents, shape (tokens, tags).
        """
        docs = list(docs)
        probabilities = np.zeros((sum(map(len, docs)), self.scheme.n_tags), dtype=np.float32)
        if len(probabilities):
            words = self._scores_of_words(docs)
            probabilities[words.places] = tag_marginals(words.log_probs, words.lengths, self.scheme, self.transitions)
        return probabilities

    def get_loss(self, examples: Iterable[Example], scores: list[Floats2d]) -> tuple[float, list[Floats2d]]:
        """Compute the loss and its gradient.

        It is the cross-entropy, or in a CRF the negative log likelihood of the annotation, with any tags at the other
        tokens.

        Tokens without annotation and white space are left out. If there is a teacher, its probabilities replace missing
        annotation, also in documents that were annotated only for some labels. Without a teacher, the loss of a token
        in such a document is that of all tags that it may have together. If a document carries the tag probabilities of
        another head (`soft_tags`), these are the target: distillation (Hinton et al., 2015, section 2, at a temperature
        of 1).

        The gradient is that of the mean over tokens, times the number of documents, so that this component and one with
        a single gradient per document, such as `textcat`, have a similar weight in their shared transformer.

        examples (Iterable[Example]): The batch.
        scores (list[Floats2d]): The model's output.
        RETURNS (tuple[float, list[Floats2d]]): The mean loss per token, and the gradient; in a CRF that of the
            transitions as one more array.
        RAISES (SettingError): A document carries probabilities of other tags, or the loss settings cannot be combined
            with them.
        """
        examples = list(examples)
        validate_examples(examples, "SequenceLabeler.get_loss")
        annotation = self._annotation(examples)
        soft = [targets_of_soft_tags(annotation.soft)] if annotation.soft else []
        if annotation.free.any():
            soft.append(self._soft_targets(examples, annotation))
        docs, tokens = self._counted(examples, annotation.learned)
        ops = self.model.ops
        log_probs = log_softmax(ops, scores)
        one = np.where(annotation.hard, annotation.truth, MISSING)
        transitions = self.transitions
        of_transitions: list[Floats2d] = []
        if transitions is None:
            weights = tag_weights(self.cfg.get("class_weights"), self.scheme)
            loss, gradient = cross_entropy(ops, log_probs, one, self.loss, weights)
            for targets in soft:
                loss += soft_cross_entropy(ops, log_probs, targets, gradient)
        else:
            predicted = [example.predicted for example in examples]
            loss, gradient, summed = sequence_loss(ops, log_probs, one, soft, predicted, self.scheme, transitions)
            of_transitions = [summed * np.float32(docs / max(tokens, 1))]
        gradient *= docs / max(tokens, 1)
        ends = np.cumsum([len(rows) for rows in scores])[:-1]
        return loss / max(tokens, 1), [*ops.xp.split(gradient, ends.tolist()), *of_transitions]

    def _annotation(self, examples: Sequence[Example]) -> TagAnnotation:
        """The annotation of a batch. Warns once of each unknown label and of white space in gold spans.

        RAISES (SettingError): A document carries probabilities of tags that this component cannot learn from.
        """
        for example in examples:
            if not has_soft_tags(example, self.spans_key):
                self._warn_of_white_space(example.reference)
        annotation = annotation_of(examples, self.scheme, self.spans_key, self.name, self._teacher is not None)
        new = {label: example for label, example in annotation.unknown.items() if label not in self._left_out}
        if new:
            self._warn_of_left_out(new)
        if annotation.soft and not self.loss.plain:
            raise SettingError(
                f"class_weights, focal_gamma and label_smoothing cannot be used when {self.name!r} learns from "
                f"probabilities of tags. Leave them out."
            )
        return annotation

    def _soft_targets(self, examples: Sequence[Example], annotation: TagAnnotation) -> SoftTargets:
        """The targets of tokens that annotation leaves open."""
        rows = np.flatnonzero(annotation.free)
        taught = None if self._teacher is None else self._teacher([example.predicted for example in examples])
        possible = possible_labels(examples, annotation.truth, self.labels)
        return soft_targets(rows, possible[rows], self.scheme, taught)

    def learn_from(self, teacher: "SequenceLabeler", see: Callable[[Sequence[Doc]], Sequence[Doc]]) -> None:
        """Learn from a trained labeler where there is no gold annotation.

        That is in documents and tokens without annotation, and for labels that a document was not annotated for. The
        teacher is not saved with this component.

        teacher (SequenceLabeler): A labeler whose labels are among those of this one.
        see (Callable): Maps the documents of a batch to copies that the teacher's transformer has processed.
        RAISES (SettingError): The teacher has other labels or another scheme.
        """
        if teacher.cfg["scheme"] != self.cfg["scheme"]:
            raise SettingError(
                f"the teacher of {self.name!r} has the scheme {teacher.cfg['scheme']!r}, but {self.name!r} has "
                f"{self.cfg['scheme']!r}: they must be the same."
            )
        check_taught(self.name, "labels", self.labels, teacher.labels)
        self._teacher = partial(_teach, self, teacher, see)

    def _grow(self, label: str) -> None:
        """Give a trained model the tags of one more label."""
        before = self.scheme
        self.cfg["labels"].append(label)
        scheme = self.scheme
        grow_labeler(self.model, before.numbers_in(scheme).tolist(), scheme.n_tags)
        weights = self.cfg.get("class_weights")
        if weights is not None:
            add_weight(weights, self.loss, label, len(before.labels))
        # A calibration would be of other weights.
        self._forget_calibration()

    def _counted(self, examples: Sequence[Example], tokens: int) -> tuple[int, int]:
        """The number of documents in the whole batch, and of tokens that count in the loss.

        examples (Sequence[Example]): The examples of the update.
        tokens (int): The number of their tokens that count in the loss.
        """
        batch = whole_batch()
        if batch is None:
            return len(examples), tokens
        return len(batch), self._annotation(batch).learned

    def _check_read(self, exclude: Iterable[str]) -> None:
        """Check the settings that were read. RAISES (ValueError): They are missing, or do not fit the model."""
        check_scheme(self.cfg["scheme"])
        self._check_calibration()
        output, n_tags = self.model.get_ref("output_layer"), self.scheme.n_tags
        if "model" in exclude or not output.has_param("W"):
            return
        if output.get_dim("nO") != n_tags:
            raise ValueError(f"its model has {output.get_dim('nO')} tags, its settings have {n_tags}")
        learned, wanted = self.transitions, self.cfg["transitions"] == LEARNED
        if (learned is not None) != wanted:
            raise ValueError(
                f"its model was trained with{'out' if learned is None else ''} learned transitions, but transitions = "
                f"{self.cfg['transitions']!r} of {self.name!r}: set it to {'null' if wanted else repr(LEARNED)}, or "
                f"train it again"
            )
        if learned is not None and learned.shape != (n_tags + 1, n_tags + 1):
            raise ValueError(f"its model has transitions of shape {learned.shape}, its settings have {n_tags} tags")

    def _see_scored(self, example: Example, gold: list[Span]) -> None:
        """Warn once of gold spans that overlap."""
        if not self._overlapped and (pair := overlapping(gold)) is not None:
            self._overlapped = True
            warnings.warn(
                f"the gold spans {named(pair[0])} and {named(pair[1])} overlap in {name_of(example.reference)}: "
                f"{self.name!r} gives each token one label, so one of the two counts as missed.",
                stacklevel=3,
            )


def _teach(
    learner: SequenceLabeler,
    teacher: SequenceLabeler,
    see: Callable[[Sequence[Doc]], Sequence[Doc]],
    docs: Sequence[Doc],
) -> Taught:
    """What a teacher predicts for documents, in the tags of the learner."""
    probabilities = teacher.tag_probabilities(see(docs))
    shares = np.zeros((len(probabilities), learner.scheme.n_tags), dtype=np.float32)
    shares[:, teacher.scheme.numbers_in(learner.scheme)] = probabilities
    return Taught(shares, np.isin(learner.labels, teacher.labels))
