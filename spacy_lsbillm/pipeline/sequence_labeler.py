"""The `sequence_labeler` component: spans from one tag a token, trained with cross-entropy."""

import warnings
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
from ..errors import SettingError
from ..tagging import Scheme, Spans, best_tags
from ..tagging.scheme import MISSING, OUTSIDE, check_scheme
from .gold_spans import (
    check_overlap,
    gold_tags,
    name_of,
    named,
    overlapping,
    score_group,
    with_trimmed_spans,
)
from .span_component import SpanComponent
from .span_writing import SCORES, Predicted, by_document, write_entities, write_group
from .whole_batch import whole_batch

DEFAULT_CONFIG = Config().from_str(
    """
[sequence_labeler]
scheme = "biluo"
spans_key = null

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
    scorer: Callable[..., dict[str, Any]] | None,
) -> "SequenceLabeler":
    """Make the component.

    model (Model): From `spacy-lsbillm.SequenceLabeler.v1`.
    scheme (str): "biluo" or "iob2".
    spans_key (str | None): Write to and learn from `doc.spans[spans_key]`; None: `doc.ents`.
    scorer (Callable | None): How `spacy evaluate` scores it.
    """
    return SequenceLabeler(nlp.vocab, model, name, scheme=scheme, spans_key=spans_key, scorer=scorer)


def make_sequence_labeler_scorer() -> Callable[..., dict[str, Any]]:
    """spaCy's own scores of entities or of spans, as the component writes them."""
    return sequence_labeler_score


def sequence_labeler_score(examples: Iterable[Example], spans_key: str | None = None, **kwargs: Any) -> dict[str, Any]:
    """Precision, recall and F1 of spans with their labels, micro-averaged and per label. White space at the ends of
    gold spans does not count."""
    if spans_key is None:
        return get_ner_prf([with_trimmed_spans(example, spans_key) for example in examples], **kwargs)
    return score_group(examples, spans_key, **kwargs)


class SequenceLabeler(SpanComponent):
    """Finds spans that do not overlap: each token gets a tag, and the tags of a document are the best well-formed
    sequence.

    The scores of spans are between 0 and 1: what the model gives the tags of the span, multiplied. They are in
    `doc.spans[spans_key].attrs["scores"]`, or in `ent._.ent_score`; `doc._.ent_scores` are those of `doc.ents`.
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
        scorer: Callable[..., dict[str, Any]] | None = sequence_labeler_score,
    ) -> None:
        check_scheme(scheme)
        super().__init__(vocab, model, name, {"scheme": scheme, "spans_key": spans_key}, scorer)
        # Whether spans that overlap were warned of.
        self._overlapped = False

    @property
    def scheme(self) -> Scheme:
        """The tags, by number."""
        return Scheme(self.cfg["scheme"], self.labels)

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
        sample = self._collect_labels(get_examples, nlp, labels)
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

    def predict(self, docs: Sequence[Doc]) -> Predicted:
        """The best well-formed tags of the words of all documents, as spans. Tokens of white space have no tag: a span
        goes on across them, and never begins or ends with one."""
        docs = list(docs)
        lengths = np.array([len(doc) for doc in docs], dtype=np.int64)
        first = np.cumsum(lengths) - lengths
        if not lengths.sum():
            nothing = np.zeros(0, dtype=np.int64)
            return Predicted(Spans(nothing, nothing, nothing, nothing.astype("f")), first)
        word = [is_word(doc) for doc in docs]
        words = np.flatnonzero(np.concatenate(word))
        log_probs = self.model.ops.to_numpy(_log_softmax(self.model, self.model.predict(docs)))[words]
        scheme = self.scheme
        tags = best_tags(log_probs, np.array([found.sum() for found in word]), scheme)
        spans = scheme.spans(tags, log_probs[np.arange(len(tags)), tags])
        return Predicted(replace(spans, start=words[spans.start], end=words[spans.end - 1] + 1), first)

    def set_annotations(self, docs: Sequence[Doc], predicted: Predicted) -> None:
        """Write the spans. Entities that a document has already are kept, and what overlaps them is left out."""
        for doc, found, scores in by_document(docs, predicted.spans, predicted.first, self.labels):
            if self.spans_key is None:
                write_entities(doc, found, scores)
            else:
                write_group(doc, self.spans_key, found, scores)

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

    def _check_read(self, exclude: Iterable[str]) -> None:
        """RAISES (ValueError): The settings that were read are none, or not those of the model."""
        check_scheme(self.cfg["scheme"])
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
