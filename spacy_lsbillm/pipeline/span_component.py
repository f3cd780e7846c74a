"""The common part of components that learn labelled spans: labels, reading gold spans, warnings, storage."""

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import srsly
from spacy.language import Language
from spacy.pipeline import TrainablePipe
from spacy.tokens import Doc, Span
from spacy.training import Example, validate_get_examples
from spacy.vocab import Vocab
from thinc.api import Model

from ..errors import SettingError, StorageError, in_short
from ..files import SEAL, check_seal, write_seal
from .gold_spans import given_spans, gold_spans, name_of, named, trimmed


class SpanComponent(TrainablePipe):
    """A component whose labels are those of gold spans, in `doc.ents` or in `doc.spans[spans_key]`.

    Its model has the layer `output_layer`, whose size depends on the labels.
    """

    # What is left out of the loss if a gold span has a label that the component does not have.
    unit: ClassVar[str]
    # Settings that are taken from the training corpus if the config has null.
    found_in_training: ClassVar[tuple[str, ...]] = ()
    # How unknown labels can be learned.
    remedy: ClassVar[str] = "train a new component"

    def __init__(
        self,
        vocab: Vocab,
        model: Model,
        name: str,
        cfg: dict[str, Any],
        scorer: Callable[..., dict[str, Any]] | None,
    ) -> None:
        self.vocab = vocab
        self.model = model
        self.name = name
        self.cfg: dict[str, Any] = {"labels": [], **cfg}
        # The settings of the config, to compare with those that were saved with the model.
        self._given = dict(cfg)
        self.scorer = scorer
        # Labels about which a warning was given.
        self._unknown: set[str] = set()
        self._left_out: set[str] = set()
        self._trimmed = False

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of spans, in the order of their numbers in the model."""
        return tuple(self.cfg["labels"])

    @property
    def label_data(self) -> list[str]:
        """The labels in the form that `spacy init labels` writes."""
        return list(self.cfg["labels"])

    @property
    def spans_key(self) -> str | None:
        """Where spans are written: `doc.spans[spans_key]`, or `doc.ents` if it is None."""
        return self.cfg["spans_key"]

    def add_label(self, label: str) -> int:
        """Add a label: before `initialize`, or to a trained component whose model can grow.

        RETURNS (int): 0 if the component has it already, else 1.
        RAISES (SettingError): It is not a label, or the size of the model's output is fixed.
        """
        if not isinstance(label, str) or not label:
            raise SettingError(f"the label {label!r} of {self.name!r} is not a non-empty string.")
        if label in self.labels:
            return 0
        if self.model.get_ref("output_layer").has_param("W"):
            self._grow(label)
        else:
            self.cfg["labels"].append(label)
        self.vocab.strings.add(label)
        return 1

    def _grow(self, label: str) -> None:
        """Add a label to a trained model.

        RAISES (SettingError): It cannot grow.
        """
        raise SettingError(
            f"the label {label!r} cannot be added to {self.name!r}: its model has {len(self.labels)} labels and is "
            f"already trained. Train it again with all of them."
        )

    def _collect_labels(
        self,
        get_examples: Callable[[], Iterable[Example]],
        nlp: Language | None,
        labels: Sequence[str] | None,
    ) -> list[Doc]:
        """Collect the labels of the training corpus, or use given ones.

        get_examples (Callable): The training corpus, which is read once completely.
        labels (Sequence[str] | None): The labels; None: those in the corpus, sorted.
        RETURNS (list[Doc]): A few non-empty documents, from which a layer can infer its sizes: a listener cannot be
            initialised with empty ones alone.
        RAISES (SettingError): There are no labels, or an empty one.
        """
        validate_get_examples(get_examples, f"{type(self).__name__}.initialize")
        corpus_labels: set[str] = set()
        for example in get_examples():
            self._warn_of_white_space(example.reference)
            gold = gold_spans(example.reference, self.spans_key)
            self._see_gold(example, gold or [])
            corpus_labels.update(span.label_ for span in gold or [])
            if "" in corpus_labels:
                empty = next(span for span in gold or [] if not span.label_)
                raise SettingError(
                    f"the gold span {empty.text!r} in {name_of(example.reference)} has an empty label, which "
                    f"{self.name!r} cannot learn: give it one, or leave it out."
                )
        if isinstance(labels, str):
            raise SettingError(f"the labels of {self.name!r} are {labels!r}, a string: give a list of them.")
        if labels is not None and not len(labels):
            raise SettingError(
                f"the list of labels of {self.name!r} is empty: name at least one, or leave the list out to use those "
                f"of the training corpus."
            )
        for label in sorted(corpus_labels) if labels is None else labels:
            self.add_label(label)
        self._check_labels()
        missing = sorted(corpus_labels - set(self.labels))
        if missing:
            self._left_out.update(missing)
            warnings.warn(
                f"the training corpus of {self.name!r} has labels that are not among the given ones: "
                f"{in_short(missing)}. {self.unit.capitalize()} with them are left out of the loss. Given: "
                f"{in_short(self.labels)}.",
                stacklevel=3,
            )
        if nlp is not None:
            self._check_weights(nlp)
        return list(islice((example.predicted for example in get_examples() if len(example.predicted)), 10))

    def _see_gold(self, example: Example, gold: list[Span]) -> None:
        """Called with the gold spans of each document of the training corpus, before training."""

    def _see_scored(self, example: Example, gold: list[Span]) -> None:
        """Called with the gold spans of each document that is scored."""

    def _check_labels(self) -> None:
        if not self.labels:
            where = "doc.ents" if self.spans_key is None else f"doc.spans[{self.spans_key!r}]"
            raise SettingError(
                f"there are no labels for {self.name!r}: no document of the training corpus has a span in {where}. "
                f"Where there is no corpus, as in spacy assemble, give them: initialize.components.{self.name}.labels."
            )
        if "" in self.labels:
            raise SettingError(f"the labels {list(self.labels)} of {self.name!r} contain an empty one.")

    def _check_weights(self, nlp: Language) -> None:
        """Warn if only scores that the component does not give would choose the best model.

        With a `spans_key` its scores have other names than those that count by default.
        """
        weights = nlp.config.get("training", {}).get("score_weights") or {}
        counted = {name for name, weight in weights.items() if weight}
        ours = f"spans_{self.spans_key}_"
        if self.spans_key is None or not counted or any(name.startswith(ours) for name in counted):
            return
        alone = not any(pipe is not self and getattr(pipe, "scorer", None) for _, pipe in nlp.pipeline)
        # Such as the defaults, which name scores that no component gives.
        of_spans = [name for name in counted if name.startswith(("ents_", "spans_"))]
        if alone or not all(any(_gives(nlp, pipe, score) for pipe in nlp.pipe_names) for score in of_spans):
            warnings.warn(
                f"{self.name!r} writes to doc.spans[{self.spans_key!r}] and scores {ours}f, but "
                f"training.score_weights counts {', '.join(sorted(counted))}: for spacy train it would make no "
                f"difference how good its spans are. Give training.score_weights.{ours}f a weight, and set "
                f"{', '.join(sorted(of_spans)) or 'the others'} to null.",
                stacklevel=4,
            )

    def _warn_of_left_out(self, new: dict[str, Example]) -> None:
        """Warn once of each gold label that the component does not have. A trained component does not get new labels.

        new (dict): By label, the first example that has it.
        """
        self._left_out.update(new)
        label, example = next(iter(new.items()))
        others = f", like {in_short(list(new)[1:])}" if len(new) > 1 else ""
        warnings.warn(
            f"the label {label!r} in {name_of(example.reference)} is not one that {self.name!r} has{others}: "
            f"{self.unit} with such labels are left out of the loss. To learn them, {self.remedy}. It has: "
            f"{in_short(self.labels)}.",
            stacklevel=3,
        )

    def _warn_of_white_space(self, doc: Doc) -> None:
        """Warn once of a gold span that begins or ends in white space."""
        if self._trimmed:
            return
        for span in given_spans(doc, self.spans_key) or []:
            within = trimmed(span)
            if within is not span:
                self._trimmed = True
                instead = "is left out" if within is None else f"counts as {within.text!r}"
                warnings.warn(
                    f"the gold span {named(span)} in {name_of(doc)} begins or ends in white space, which is never part "
                    f"of a span: for {self.name!r} it {instead}, like all such spans.",
                    stacklevel=3,
                )
                return

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write the component to a folder, with a list of its files by which changes are detected.

        exclude (Iterable[str]): "vocab", "cfg" or "model".
        """
        super().to_disk(path, exclude=exclude)
        write_seal(Path(path))

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> "SpanComponent":
        """Load the component from a folder.

        RAISES (StorageError): A file in it was altered, or cannot be read. A folder of an older version has no list of
            its files and is not checked.
        RAISES (SettingError): The config has a setting with another value than the one that it was trained with.
        """
        if os.path.lexists(Path(path) / SEAL):
            check_seal(Path(path))
        try:
            # spaCy accepts an empty list as settings.
            if "cfg" not in exclude and not isinstance(srsly.read_json(Path(path) / "cfg"), dict):
                raise ValueError("its cfg holds no settings")
            super().from_disk(path, exclude=exclude)
            self._check_read(exclude)
        except Exception as error:
            # The files are read by several libraries with their own errors.
            raise StorageError(f"the component in {path} cannot be read: {error}. Copy the pipeline again.") from error
        if "cfg" not in exclude:
            self._check_given()
        return self

    def _check_given(self) -> None:
        """Check that the settings of the config are those that were saved, which count.

        RAISES (SettingError): One differs.
        """
        for name, value in self._given.items():
            if name in self.found_in_training and value is None:
                continue
            if value != self.cfg[name]:
                raise SettingError(
                    f"{name} = {value!r} of {self.name!r} cannot be changed after training: it was trained with "
                    f"{self.cfg[name]!r}. Set that in its config, or train it again."
                )

    def _check_read(self, exclude: Iterable[str]) -> None:
        """Check the settings that were read. RAISES (ValueError): They are missing, or do not fit the model."""

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """Score a batch of examples, and warn once of gold that the component cannot predict.

        That is gold labels that it does not have, and other gold spans that it cannot find.
        """
        examples = list(examples)
        unknown: dict[str, tuple[Span, Doc]] = {}
        for example in examples:
            self._warn_of_white_space(example.reference)
            gold = gold_spans(example.reference, self.spans_key) or []
            self._see_scored(example, gold)
            for span in gold:
                if span.label_ not in self._unknown and span.label_ not in self.cfg["labels"]:
                    unknown.setdefault(span.label_, (span, example.reference))
        if unknown:
            self._unknown.update(unknown)
            label, (span, doc) = next(iter(unknown.items()))
            others = f", like {in_short(list(unknown)[1:])}" if len(unknown) > 1 else ""
            warnings.warn(
                f"the label {label!r} of {span.text!r} in {name_of(doc)} is not one that {self.name!r} was trained "
                f"with{others}: spans with it count as missed. Labels: {in_short(self.labels)}.",
                stacklevel=2,
            )
        return super().score(examples, **{**kwargs, "spans_key": self.spans_key})


def _gives(nlp: Language, name: str, score: str) -> bool:
    """Whether a component gives a certain score of entities or spans."""
    cfg = getattr(nlp.get_pipe(name), "cfg", None) or {}
    if "spans_key" in cfg:
        return score.startswith("ents_" if cfg["spans_key"] is None else f"spans_{cfg['spans_key']}_")
    return score in (nlp.get_pipe_meta(name).default_score_weights or {})
