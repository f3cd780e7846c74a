"""Listeners that refuse documents that have no vectors from their transformer.

spacy-transformers gives a listener zeros for such a document. That is needed when a model infers its size from a
sample, but otherwise leads to predictions without any input. It happens where the transformer is missing, disabled or
later in the pipeline, where a component processes a copy of a part of a document (`Span.as_doc` does not keep the
vectors), and where something has cleared `doc._.trf_data`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from spacy.tokens import Doc
from spacy_transformers.data_classes import TransformerData
from spacy_transformers.layers import TransformerListener
from spacy_transformers.layers.listener import forward as listen
from thinc.api import Model

from ..errors import ListenerError

LONGEST_EXCERPT = 60


def listeners_in(model: Any) -> list[TransformerListener]:
    """The listeners in a component's model; none if it has no thinc model."""
    return [node for node in model.walk() if isinstance(node, TransformerListener)] if isinstance(model, Model) else []


def guard(listener: TransformerListener, component: str | None = None, transformer: str | None = None) -> None:
    """Make a listener refuse documents that its transformer has not processed.

    component (str | None), transformer (str | None): The names of the listening component and its transformer, for the
        message; None keeps the name given before.
    """
    listener._func = forward
    listener.init = init
    listener.component = component or getattr(listener, "component", None)
    listener.transformer = transformer or getattr(listener, "transformer", None)
    listener.sample = []


def init(model: TransformerListener, X: Any = None, Y: Any = None) -> None:
    """Remember the sample from which the layers after the listener infer their width, until other documents come.

    RAISES (ListenerError): There is no transformer that would give the width.
    """
    if not model.has_dim("nO"):
        who, upstream = _names(model)
        raise ListenerError(
            f"{who} listens to {upstream!r}, but there is no loaded transformer of that name before it in the "
            f"pipeline. Add one, or correct the listener's setting upstream."
        )
    model.sample = list(X or ())


def forward(model: TransformerListener, docs: Sequence[Doc], is_train: bool) -> tuple[list[Any], Callable]:
    """Return the vectors that the transformer passed on in training, or stored in the documents.

    RAISES (ListenerError): There are none, or the tokens of the documents have changed since.
    """
    if not is_train and model.sample and _same(docs, model.sample):
        return listen(model, docs, is_train)
    # `spacy debug model` predicts from the documents of its last update.
    model.sample = list(docs) if is_train else []
    if is_train and model._batch_id is not None:
        try:
            return listen(model, docs, is_train)
        except ValueError:
            # Its vectors are from an update that its component did not take part in, and are no longer needed. Those
            # needed now may be in the documents, as in nlp.rehearse.
            model.receive(None, None, None)
    vectors = [_checked(model, doc, is_train) for doc in docs]
    return (vectors, no_gradient) if not is_train else listen(model, docs, is_train)


def no_gradient(gradients: Any) -> list[Any]:
    """Return no gradients, since nothing learns from a prediction."""
    return []


def _same(docs: Sequence[Doc], others: Sequence[Doc]) -> bool:
    return len(docs) == len(others) and all(one is other for one, other in zip(docs, others, strict=True))


def _names(model: TransformerListener) -> tuple[str, str]:
    """The component, and the transformer it listens to."""
    upstream = "transformer" if model.upstream_name == "*" else model.upstream_name
    return repr(model.component) if model.component else "a component", model.transformer or upstream


def _checked(model: TransformerListener, doc: Doc, is_train: bool) -> TransformerData:
    """The vectors of a document, after a check that they are those that a listener needs.

    RAISES (ListenerError): It has none, or those of another transformer.
    """
    data: TransformerData | None = doc._.trf_data
    if data is not None and (not len(doc) or len(data.align.lengths) == len(doc)):
        return data
    if not len(doc):
        return TransformerData.empty()
    who, upstream = _names(model)
    text = doc.text if len(doc.text) <= LONGEST_EXCERPT else doc.text[: LONGEST_EXCERPT - 3] + "..."
    whose = f"{who} listens to {upstream!r}"
    if data is not None:
        raise ListenerError(
            f"{whose}, which processed {len(data.align.lengths)} tokens in the document {text!r}; now it has "
            f"{len(doc)}. Put components that merge or split tokens before {upstream!r}."
        )
    if is_train:
        raise ListenerError(
            f"{whose}, which gave no vectors for the document {text!r}. In training put {upstream!r} before {who}, and "
            f"into annotating_components if it is frozen. nlp.rehearse does not run the transformer: run it over the "
            f"documents first, as in doc = nlp.get_pipe({upstream!r})(doc), or replace the listener "
            f"(nlp.replace_listeners)."
        )
    raise ListenerError(
        f"{whose}, which has not processed the document {text!r}: there are no vectors in doc._.trf_data. Put "
        f"{upstream!r} into the pipeline before {who}, enabled, with nothing in between that clears them. A component "
        f"that processes copies of parts of a document, as entity_linker does, needs its own transformer: "
        f"nlp.replace_listeners({upstream!r}, {who}, ['model.tok2vec'])."
    )
