"""What spaCy hands to a model and what must have no part in it: empty documents, and documents without a class where
classes exclude each other."""

from collections.abc import Callable
from typing import Any

from spacy.tokens import Doc
from thinc.api import Model
from thinc.types import Floats2d

# In the attributes of a model: its classes exclude each other, and documents without one have no part in its loss.
ONLY_LABELLED = "only_labelled"


def leave_out(
    model: Model, docs: list[Doc], probabilities: Floats2d, backprop: Callable[[Floats2d], Any]
) -> tuple[Floats2d, Callable[[Floats2d], Any]]:
    """Keep documents out of the output of a classifier, and out of its gradient.

    Empty documents get probabilities of 0, in company as alone, where spaCy does not ask the model. A document without
    a class is one with none of them for `textcat`, which hands back the probabilities less nothing: a gradient that is
    equal to the probabilities. No document with a class has that, as 1 is taken from one of its probabilities.

    docs (list[Doc]): What went in.
    probabilities (Floats2d): What came out, shape (documents, classes).
    backprop (Callable): Takes a gradient of that shape.
    RETURNS (tuple): Both as a layer returns them.
    """
    empty = model.ops.xp.asarray([len(doc) == 0 for doc in docs], dtype=bool)
    probabilities = probabilities * ~empty[:, None]

    def backprop_others(gradient: Floats2d) -> Any:
        out = empty
        if model.attrs.get(ONLY_LABELLED):
            out = out | (gradient == probabilities).all(axis=1)
        return backprop(gradient * ~out[:, None])

    return probabilities, backprop_others


def sample_of(docs: list[Doc] | None) -> list[Doc] | None:
    """Documents to initialise a model with: those of a sample that are not empty, or one that stands for them, as a
    listener cannot be initialised with empty ones alone."""
    if not docs:
        return docs
    return [doc for doc in docs if len(doc)] or [Doc(docs[0].vocab, words=["a"])]
