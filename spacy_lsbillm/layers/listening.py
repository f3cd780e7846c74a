"""Listeners that refuse documents without the vectors that they listen for.

spaCy-transformers gives a listener zeros for such a document, which it needs where a model learns its size from a few
of them, and which otherwise are predictions from nothing. A pipeline has such documents where the transformer is
missing, disabled or behind, where a component takes a part of a document for itself (`Span.as_doc` leaves the vectors
behind), and where something has cleared `doc._.trf_data`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from spacy.tokens import Doc
from spacy_transformers.layers import TransformerListener
from spacy_transformers.layers.listener import forward as listen
from thinc.api import Model

from ..errors import ListenerError

LONGEST_EXCERPT = 60


def listeners_in(model: Any) -> list[TransformerListener]:
    """The listeners in a component's model; none where it has no model of thinc."""
    return [node for node in model.walk() if isinstance(node, TransformerListener)] if isinstance(model, Model) else []


def guard(listener: TransformerListener, component: str | None = None, transformer: str | None = None) -> None:
    """Have a listener refuse documents that its transformer has not seen.

    component (str | None), transformer (str | None): Who listens to whom, for the message; None leaves what was said
        before.
    """
    listener._func = forward
    listener.init = init
    listener.component = component or getattr(listener, "component", None)
    listener.transformer = transformer or getattr(listener, "transformer", None)
    listener.sample = []


def init(model: TransformerListener, X: Any = None, Y: Any = None) -> None:
    """Remember the documents from which the layers behind it learn the width, until others come.

    RAISES (ListenerError): There is no transformer to learn it from.
    """
    if not model.has_dim("nO"):
        who, upstream = _names(model)
        raise ListenerError(
            f"{who} listens to {upstream!r}, but no transformer of that name that is loaded stands before it in the "
            f"pipeline. Put one there, or correct the listener's setting upstream."
        )
    model.sample = list(X or ())


def forward(model: TransformerListener, docs: Sequence[Doc], is_train: bool) -> tuple[list[Any], Callable]:
    """What the transformer has given, in training, or has left in the documents.

    RAISES (ListenerError): It has left nothing there, or the documents have other tokens by now.
    """
    if not is_train and model.sample and _same(docs, model.sample):
        return listen(model, docs, is_train)
    # `spacy debug model` predicts from the documents of its last update.
    model.sample = list(docs) if is_train else []
    if is_train and model._batch_id is not None:
        try:
            return listen(model, docs, is_train)
        except ValueError:
            # What it holds is of other documents: of an update in which its component had no part. Nobody will ask for
            # that any more, and what is asked for now may be in the documents, as in nlp.rehearse.
            model.receive(None, None, None)
    for doc in docs:
        _check(model, doc, is_train)
    return listen(model, docs, is_train)


def _same(docs: Sequence[Doc], others: Sequence[Doc]) -> bool:
    return len(docs) == len(others) and all(one is other for one, other in zip(docs, others, strict=True))


def _names(model: TransformerListener) -> tuple[str, str]:
    """The component, and the transformer it listens to."""
    upstream = "transformer" if model.upstream_name == "*" else model.upstream_name
    return repr(model.component) if model.component else "a component", model.transformer or upstream


def _check(model: TransformerListener, doc: Doc, is_train: bool) -> None:
    data = doc._.trf_data
    if not len(doc) or (data is not None and len(data.align.lengths) == len(doc)):
        return
    who, upstream = _names(model)
    text = doc.text if len(doc.text) <= LONGEST_EXCERPT else doc.text[: LONGEST_EXCERPT - 3] + "..."
    whose = f"{who} listens to {upstream!r}"
    if data is not None:
        raise ListenerError(
            f"{whose}, which has seen {len(data.align.lengths)} tokens in the document {text!r}; now it has "
            f"{len(doc)}. Put components that merge or split tokens before {upstream!r}."
        )
    if is_train:
        raise ListenerError(
            f"{whose}, which gave no vectors for the document {text!r}. In training put {upstream!r} before {who}, and "
            f"into annotating_components if it is frozen. nlp.rehearse runs no transformer: run it over the documents "
            f"first, as in doc = nlp.get_pipe({upstream!r})(doc), or replace the listener (nlp.replace_listeners)."
        )
    raise ListenerError(
        f"{whose}, which has not seen the document {text!r}: there are no vectors in doc._.trf_data. Have {upstream!r} "
        f"in the pipeline, enabled, before {who}, and nothing in between that clears them. A component that looks at "
        f"copies of parts of a document, as entity_linker does, needs a transformer of its own: "
        f"nlp.replace_listeners({upstream!r}, {who}, ['model.tok2vec'])."
    )
