"""The `sequence_labeler` component: spans from one tag a token, trained with cross-entropy."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import srsly
from spacy.language import Language
from spacy.pipeline import TrainablePipe
from spacy.scorer import Scorer, get_ner_prf
from spacy.tokens import Doc, Span
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.vocab import Vocab
from thinc.api import Config, Model
from thinc.types import Floats2d

from ..errors import SettingError, StorageError, in_short
from ..files import SEAL, check_seal, write_seal
from ..tagging import Calibration, Scheme, Spans, around_spans, best_tags, calibration_error, candidates
from ..tagging.scheme import MISSING, OUTSIDE, check_scheme
from ..values import is_flag, is_number
from .gold_spans import (
    characters_of_gold,
    check_overlap,
    given_spans,
    gold_spans,
    gold_tags,
    is_word,
    name_of,
    named,
    overlapping,
    trimmed,
    with_trimmed_spans,
)
from .span_writing import SCORES, scores_of_entities, write_entities, write_group
from .whole_batch import whole_batch

DEFAULT_CONFIG = Config().from_str(
    """
[sequence_labeler]
scheme = "biluo"
spans_key = null
scores = true
threshold = null
calibrated = true

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
    attr = f"spans_{spans_key}"
    found = Scorer.score_spans(
        examples,
        attr,
        getter=lambda doc, key: doc.spans.get(key.removeprefix("spans_"), []),
        has_annotation=lambda doc: spans_key in doc.spans,
        allow_overlap=True,
        labeled=True,
        **kwargs,
    )
    return {**found, f"{attr}_ece": error}


@dataclass(frozen=True)
class Predicted:
    """The spans of some documents, whose tokens are numbered through.

    first (ndarray[int64]): The number of each document's first token.
    candidates (Spans | None): Overlapping ones too, where they are wanted.
    """

    spans: Spans
    first: np.ndarray
    candidates: Spans | None = None


class SequenceLabeler(TrainablePipe):
    """Finds spans that do not overlap: each token gets a tag, and the tags of a document are the best well-formed
    sequence.

    The scores of spans are their probabilities: the share of all well-formed sequences of tags that have the span, each
    as probable as its tags. They are in `doc.spans[spans_key].attrs["scores"]`, or in `ent._.ent_score`;
    `doc._.ent_scores` are those of `doc.ents`. What `spacy lsbillm calibrate` has found is applied to them.
    """

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
        scorer: Callable[..., dict[str, Any]] | None = sequence_labeler_score,
    ) -> None:
        check_scheme(scheme)
        check_confidence(name, scores, threshold, calibrated)
        self.vocab = vocab
        self.model = model
        self.name = name
        self.cfg: dict[str, Any] = {"labels": [], "scheme": scheme, "spans_key": spans_key}
        self.scorer = scorer
        # Settings of prediction: those of the config count, not those that were saved with the labels.
        self.scores = scores
        self.threshold = threshold
        self.calibrated = calibrated
        # Labels that were warned of.
        self._unknown: set[str] = set()
        self._left_out: set[str] = set()
        self._overlapped = False
        self._trimmed = False

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of spans."""
        return tuple(self.cfg["labels"])

    @property
    def label_data(self) -> list[str]:
        """What `spacy init labels` writes."""
        return list(self.cfg["labels"])

    @property
    def scheme(self) -> Scheme:
        """The tags, by number."""
        return Scheme(self.cfg["scheme"], self.labels)

    @property
    def spans_key(self) -> str | None:
        """Where spans are written: `doc.spans[spans_key]`, or `doc.ents` with None."""
        return self.cfg["spans_key"]

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

    def add_label(self, label: str) -> int:
        """Add a label, before `initialize`.

        RETURNS (int): 0 if it is there already, else 1.
        RAISES (ValueError): The model's output has its size already.
        """
        if not isinstance(label, str):
            raise SettingError(f"the label {label!r} of {self.name!r} is not a string.")
        if label in self.labels:
            return 0
        if self.model.get_ref("output_layer").has_param("W"):
            raise SettingError(
                f"the label {label!r} cannot be added to {self.name!r}: its model has {len(self.labels)} labels and is "
                f"trained. Train it again with all of them."
            )
        self.cfg["labels"].append(label)
        self.vocab.strings.add(label)
        return 1

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
        validate_get_examples(get_examples, "SequenceLabeler.initialize")
        found: set[str] = set()
        for example in get_examples():
            self._warn_of_white_space(example.reference)
            gold = gold_spans(example.reference, self.spans_key)
            check_overlap(gold or [], example.reference, self.name)
            found.update(span.label_ for span in gold or [])
            if "" in found:
                empty = next(span for span in gold or [] if not span.label_)
                raise SettingError(
                    f"the gold span {empty.text!r} in {name_of(example.reference)} has an empty label, which "
                    f"{self.name!r} cannot learn: give it one, or leave it out."
                )
        if isinstance(labels, str):
            raise SettingError(f"the labels of {self.name!r} are {labels!r}, a string: give a list of them.")
        if labels is not None and not len(labels):
            raise SettingError(
                f"the list of labels of {self.name!r} is empty: name at least one, or leave the list out to take those "
                f"of the training corpus."
            )
        for label in sorted(found) if labels is None else labels:
            self.add_label(label)
        self._check_labels()
        # It was of other weights.
        self.calibration = None
        missing = sorted(found - set(self.labels))
        if missing:
            self._left_out.update(missing)
            warnings.warn(
                f"the training corpus of {self.name!r} has labels that are not among the given ones: "
                f"{in_short(missing)}. Tokens with them are left out of the loss. Given: {in_short(self.labels)}.",
                stacklevel=2,
            )
        if nlp is not None:
            self._check_weights(nlp)
        # A listener cannot be initialised with empty documents alone.
        sample = list(islice((example.predicted for example in get_examples() if len(example.predicted)), 10))
        output, n_tags = self.model.get_ref("output_layer"), self.scheme.n_tags
        if output.has_dim("nO") and output.get_dim("nO") != n_tags:
            raise SettingError(
                f"nO = {output.get_dim('nO')} does not fit {self.name!r}: {len(self.labels)} labels in the scheme "
                f"{self.scheme.name!r} are {n_tags} tags. Use null, so that it is set to that."
            )
        output.set_dim("nO", n_tags)
        self.model.initialize(X=sample)

    def _check_labels(self) -> None:
        if not self.labels:
            where = "doc.ents" if self.spans_key is None else f"doc.spans[{self.spans_key!r}]"
            raise SettingError(
                f"there are no labels for {self.name!r}: no document of the training corpus has a span in {where}. "
                f"Where there is no corpus, as in spacy assemble, give them: initialize.components.{self.name}.labels."
            )
        if "" in self.labels:
            raise SettingError(f"the labels {list(self.labels)} of {self.name!r} hold an empty one.")

    def _check_weights(self, nlp: Language) -> None:
        """With a `spans_key` the scores have other names than those that count by default: warn where only scores that
        it does not give would choose the best model."""
        weights = nlp.config.get("training", {}).get("score_weights") or {}
        counted = {name for name, weight in weights.items() if weight}
        ours = f"spans_{self.spans_key}_f"
        if self.spans_key is None or not counted or ours in counted:
            return
        alone = not any(pipe is not self and getattr(pipe, "scorer", None) for _, pipe in nlp.pipeline)
        # The default, which names what nobody gives.
        entities = any(name.startswith("ents_") for name in counted)
        if (alone and not any(name.startswith("spans_") for name in counted)) or (
            entities and not any(_gives_entities(nlp, name) for name in nlp.pipe_names)
        ):
            warnings.warn(
                f"{self.name!r} writes to doc.spans[{self.spans_key!r}] and scores {ours}, but "
                f"training.score_weights counts {', '.join(sorted(counted))}: for spacy train it would make no "
                f"difference how good its spans are. Give training.score_weights.{ours} a weight, and set the ents_… "
                f"to null.",
                stacklevel=3,
            )

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
        return Predicted(_on(words, spans), first, None if found is None else _on(words, found))

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
        for doc, found, scores in self._by_document(docs, predicted.spans, predicted.first):
            if self.spans_key is None:
                write_entities(doc, found, scores)
            else:
                write_group(doc, self.spans_key, found, scores)
        if predicted.candidates is not None:
            calibration = self.calibration
            assert calibration is not None and calibration.candidates_key is not None
            for doc, found, scores in self._by_document(docs, predicted.candidates, predicted.first):
                write_group(doc, calibration.candidates_key, found, scores)

    def _by_document(
        self, docs: Sequence[Doc], spans: Spans, first: np.ndarray
    ) -> Iterator[tuple[Doc, list[Span], list[float] | None]]:
        """The spans of each document, and their scores; None where there shall be none."""
        labels = self.labels
        where = np.searchsorted(first, spans.start, side="right") - 1
        # Of documents that begin at the same token all but the last are empty.
        offset = first[where]
        rows = zip(
            (spans.start - offset).tolist(),
            (spans.end - offset).tolist(),
            spans.label.tolist(),
            spans.score.tolist(),
            strict=True,
        )
        counts = np.bincount(where, minlength=len(docs)).tolist()
        for doc, count in zip(docs, counts, strict=True):
            chosen = list(islice(rows, count))
            found = [Span(doc, start, end, label=labels[label]) for start, end, label, _ in chosen]
            yield doc, found, [score for *_, score in chosen] if self.scores else None

    def get_loss(self, examples: Iterable[Example], scores: list[Floats2d]) -> tuple[float, list[Floats2d]]:
        """Cross-entropy. Tokens without annotation and those of white space have none.

        The gradient is that of the mean over tokens, times the documents: beside a component with one gradient a
        document, such as `textcat`, neither drowns the other in their shared transformer.

        examples (Iterable[Example]): The batch.
        scores (list[Floats2d]): The model's output.
        RETURNS (tuple[float, list[Floats2d]]): The mean loss of a token, and the gradient.
        """
        examples = list(examples)
        validate_examples(examples, "SequenceLabeler.get_loss")
        known = {label: i for i, label in enumerate(self.labels)}
        scheme = self.scheme
        numbers: list[int] = []
        new: dict[str, Example] = {}
        for example in examples:
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
        loss = 0.0
        if len(rows):
            gradient[rows] = xp.exp(log_probs[rows])
            gradient[rows, truth[rows]] -= 1
            docs, tokens = self._counted(examples, len(rows))
            gradient *= docs / tokens
            loss = -float(log_probs[rows, truth[rows]].mean()) * (len(rows) / tokens)
        ends = np.cumsum([len(rows) for rows in scores])[:-1]
        return loss, xp.split(gradient, ends.tolist())

    def _counted(self, examples: Sequence[Example], tokens: int) -> tuple[int, int]:
        """The documents of the whole batch, and the tokens that have a loss.

        examples (Sequence[Example]): What the component was updated with.
        tokens (int): Of those, the tokens with a loss.
        """
        batch = whole_batch()
        if batch is None:
            return len(examples), tokens
        known, scheme = {label: i for i, label in enumerate(self.labels)}, self.scheme
        tags = (gold_tags(example, self.spans_key, self.name) for example in batch)
        return len(batch), sum(number != MISSING for found in tags for number in scheme.numbers(found, known))

    def _warn_of_left_out(self, new: dict[str, Example]) -> None:
        """Once of each gold label that the component does not have. One that was trained before gets no others.

        new (dict): By label, the first example that has it.
        """
        self._left_out.update(new)
        label, example = next(iter(new.items()))
        others = f", like {in_short(list(new)[1:])}" if len(new) > 1 else ""
        warnings.warn(
            f"the label {label!r} in {name_of(example.reference)} is not one that {self.name!r} has{others}: tokens "
            f"with such labels are left out of the loss. To learn them, train a new {self.name!r}. It has: "
            f"{in_short(self.labels)}.",
            stacklevel=3,
        )

    def _warn_of_white_space(self, doc: Doc) -> None:
        """Once of a gold span that begins or ends in white space."""
        if self._trimmed:
            return
        for span in given_spans(doc, self.spans_key) or []:
            found = trimmed(span)
            if found is not span:
                self._trimmed = True
                instead = "is left out" if found is None else f"counts as {found.text!r}"
                warnings.warn(
                    f"the gold span {named(span)} in {name_of(doc)} begins or ends in white space, which is no part of "
                    f"a span: for {self.name!r} it {instead}, and so with all such spans.",
                    stacklevel=3,
                )
                return

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write the component to a folder, with a list of its files by which a change is noticed.

        exclude (Iterable[str]): "vocab", "cfg" or "model".
        """
        super().to_disk(path, exclude=exclude)
        write_seal(Path(path))

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> "SequenceLabeler":
        """Read the component from a folder.

        RAISES (StorageError): A file in it is not what was written, or cannot be read. A folder of an older version has
            no list of its files: it is read as it is.
        """
        if os.path.lexists(Path(path) / SEAL):
            check_seal(Path(path))
        try:
            # spaCy takes an empty list for settings that say nothing.
            if "cfg" not in exclude and not isinstance(srsly.read_json(Path(path) / "cfg"), dict):
                raise ValueError("its cfg holds no settings")
            super().from_disk(path, exclude=exclude)
            self._check_read(exclude)
        except Exception as error:
            # The files are read by several libraries with errors of their own.
            raise StorageError(f"the component in {path} cannot be read: {error}. Copy the pipeline again.") from error
        return self

    def _check_read(self, exclude: Iterable[str]) -> None:
        """RAISES (ValueError): The settings that were read are none, or not those of the model."""
        check_scheme(self.cfg["scheme"])
        if (calibration := self.calibration) is not None:
            for by_label in (calibration.threshold, calibration.candidates_from, calibration.by_label):
                self._least(dict.fromkeys(by_label, 0.0))
        output, n_tags = self.model.get_ref("output_layer"), self.scheme.n_tags
        if "model" not in exclude and output.has_param("W") and output.get_dim("nO") != n_tags:
            raise ValueError(f"its model has {output.get_dim('nO')} tags, its settings have {n_tags}")

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """Score a batch of examples, and warn once of gold labels that the component cannot give, of gold spans that
        overlap, and of those that begin or end in white space."""
        examples = list(examples)
        unknown: dict[str, tuple[Span, Doc]] = {}
        for example in examples:
            self._warn_of_white_space(example.reference)
            gold = gold_spans(example.reference, self.spans_key) or []
            if not self._overlapped and (pair := overlapping(gold)) is not None:
                self._overlapped = True
                warnings.warn(
                    f"the gold spans {named(pair[0])} and {named(pair[1])} overlap in {name_of(example.reference)}: "
                    f"{self.name!r} gives each token one label, so that one of the two counts as missed.",
                    stacklevel=2,
                )
            for span in gold:
                if span.label_ not in self._unknown and span.label_ not in self.cfg["labels"]:
                    unknown.setdefault(span.label_, (span, example.reference))
        if unknown:
            self._unknown.update(unknown)
            label, (span, doc) = next(iter(unknown.items()))
            others = f", like {in_short(list(unknown)[1:])}" if len(unknown) > 1 else ""
            warnings.warn(
                f"the label {label!r} of {span.text!r} in {name_of(doc)} is not one that {self.name!r} was trained "
                f"with{others}: what has it counts as missed. Labels: {in_short(self.labels)}.",
                stacklevel=2,
            )
        return super().score(examples, **{**kwargs, "spans_key": self.spans_key})


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


def _gives_entities(nlp: Language, name: str) -> bool:
    pipe = nlp.get_pipe(name)
    if isinstance(pipe, SequenceLabeler):
        return pipe.spans_key is None
    return "ents_f" in (nlp.get_pipe_meta(name).default_score_weights or {})
