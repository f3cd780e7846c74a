"""A trained pipeline as the teacher of one that is trained further: its predictions replace missing annotation.

Learning without Forgetting (Li and Hoiem, arXiv 1606.09282), for tags and classes without annotation.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import spacy
from spacy.language import Language
from spacy.pipeline import TextCategorizer
from spacy.tokens import Doc
from spacy_transformers.pipeline_component import Transformer

from ..errors import SettingError
from ..layers import is_pooled_textcat, teach_textcat
from .labeler_settings import check_taught
from .sequence_labeler import SequenceLabeler


class Teacher:
    """A pipeline that only predicts.

    Its transformers process each batch once, however many components learn from it. If its base is that of the learning
    pipeline, both share the weights.

    nlp (Language): The pipeline.
    """

    def __init__(self, nlp: Language) -> None:
        self.nlp = nlp
        self._docs: list[Doc] = []
        self._seen: list[Doc] = []

    def see(self, docs: Sequence[Doc]) -> list[Doc]:
        """Copies of a batch's documents, with their tokens, that the teacher's transformers have processed."""
        docs = list(docs)
        if len(docs) != len(self._docs) or any(one is not other for one, other in zip(docs, self._docs, strict=True)):
            seen = [self._copy(doc) for doc in docs]
            for _, pipe in self.nlp.pipeline:
                if isinstance(pipe, Transformer):
                    pipe.set_annotations(seen, pipe.predict(seen))
            self._docs, self._seen = docs, seen
        return self._seen

    def _copy(self, doc: Doc) -> Doc:
        """The tokens of a document, with sentence starts, as a transformer may process sentences separately."""
        starts = [bool(token.is_sent_start) for token in doc] if doc.has_annotation("SENT_START") else None
        return Doc(
            self.nlp.vocab,
            words=[token.text for token in doc],
            spaces=[bool(token.whitespace_) for token in doc],
            sent_starts=starts,  # type: ignore[arg-type]  # spaCy's types know of a list alone
        )

    def teach(self, nlp: Language, name: str) -> None:
        """Let a component learn from the teacher's component of the same name.

        nlp (Language): The pipeline that learns.
        name (str): A `sequence_labeler`, or a `textcat` or `textcat_multilabel` with `PooledTextCat`.
        RAISES (SettingError): One of the pipelines has no such component, or they do not fit each other.
        """
        learner, teacher = _component(nlp, name, "pipeline"), _component(self.nlp, name, "teacher")
        if isinstance(learner, SequenceLabeler) and isinstance(teacher, SequenceLabeler):
            learner.learn_from(teacher, self.see)
        elif _is_classifier(learner) and _is_classifier(teacher):
            if learner.model.attrs["multi_label"] != teacher.model.attrs["multi_label"]:
                raise SettingError(
                    f"the classes of {name!r} are exclusive in one of the pipeline and its teacher, but not in "
                    f"the other: use the pipeline that {name!r} came from as the teacher."
                )
            check_taught(name, "classes", learner.labels, teacher.labels)
            columns = [learner.labels.index(label) for label in teacher.labels]
            teach_textcat(learner.model, partial(_classes, self, teacher), columns)
        else:
            raise SettingError(
                f"{name!r} cannot learn from a teacher: it must be a sequence_labeler, or a textcat or "
                f"textcat_multilabel with the model spacy-lsbillm.PooledTextCat.v1, in both pipelines."
            )


def _classes(teacher: Teacher, pipe: TextCategorizer, docs: Sequence[Doc]):  # type: ignore[no-untyped-def]
    return pipe.predict(teacher.see(docs))


def _is_classifier(pipe: object) -> bool:
    return isinstance(pipe, TextCategorizer) and is_pooled_textcat(pipe.model)


def _component(nlp: Language, name: str, whose: str):  # type: ignore[no-untyped-def]
    if name not in nlp.component_names:
        raise SettingError(
            f"the {whose} has no component {name!r}; it has: {', '.join(nlp.component_names) or 'none'}."
        )
    return nlp.get_pipe(name)


def create_new_labels_v1(
    labels: Mapping[str, Sequence[str]] | None = None, teacher: str | Path | None = None
) -> Callable[[Language], Language]:
    """Create a callback for `[initialize.after_init]` that adds labels to sourced components.

    They come from a trained pipeline, and keep what they know.

    labels (Mapping): New labels by component; those that it has already are skipped.
    teacher (str | Path | None): A trained pipeline, usually the one from which the components are sourced: where there
        is no gold annotation, the components in `labels` learn its predictions. None: no teacher.
    RAISES (SettingError): No component is named, or its labels are not a list.
    """
    labels = labels or {}
    if not labels:
        raise SettingError(
            "new_labels: labels names no component. Give a list of new labels by component, as in [initialize."
            'after_init.labels], with sequence_labeler = ["director"]. It may be empty.'
        )
    for name, new in labels.items():
        if isinstance(new, str) or not all(isinstance(label, str) and label for label in new):
            raise SettingError(
                f'new_labels: the labels of {name!r} are {new!r}; they must be a list such as ["director"].'
            )
    return partial(add_labels, labels=labels, teacher=teacher)


def add_labels(
    nlp: Language, labels: Mapping[str, Sequence[str]], teacher: str | Path | Language | None = None
) -> Language:
    """Add labels to components of a trained pipeline.

    What they know about the others does not change until they are trained; then a teacher preserves it.

    nlp (Language): The pipeline, which is changed.
    labels (Mapping[str, Sequence[str]]): New labels by component; those that it has already are skipped.
    teacher (str | Path | Language | None): A trained pipeline other than `nlp` itself, see `Teacher`; None: no teacher.
    RETURNS (Language): The same pipeline.
    RAISES (SettingError): A component is missing, cannot grow, or does not fit its teacher.
    """
    for name, new in labels.items():
        pipe = _component(nlp, name, "pipeline")
        if not hasattr(pipe, "add_label"):
            raise SettingError(f"new_labels: {name!r} has no labels. Name components that have.")
        before = len(pipe.labels)
        for label in new:
            pipe.add_label(label)
        model = nlp._pipe_configs.get(name, {}).get("model", {})
        if len(pipe.labels) > before and model.get("nO") is not None:
            # The configured size is no longer that of the model, which could not be loaded with it.
            model["nO"] = None
    if teacher is None:
        return nlp
    if teacher is nlp:
        raise SettingError("the teacher of a pipeline cannot be the pipeline itself: load the old one once more.")
    taught = Teacher(teacher if isinstance(teacher, Language) else _loaded(teacher, labels))
    for name in labels:
        taught.teach(nlp, name)
    return nlp


def _loaded(path: str | Path, names: Mapping[str, Sequence[str]]) -> Language:
    """Load a pipeline with only the components that teach and the transformers."""
    try:
        nlp = spacy.load(path)
    except OSError as error:
        raise SettingError(
            f"the teacher {str(path)!r} cannot be loaded: {error}. Name the folder or package of a trained pipeline."
        ) from error
    for name, pipe in list(nlp.pipeline):
        if name not in names and not isinstance(pipe, Transformer):
            nlp.remove_pipe(name)
    return nlp
