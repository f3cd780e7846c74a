"""Documents that spaCy passes to a classifier and that must not affect it.

These are empty ones, and those without a class where classes exclude each other.
"""

from collections.abc import Callable
from typing import Any

from spacy.tokens import Doc
from thinc.api import Model
from thinc.types import Floats2d

# A model attribute: its classes exclude each other, and documents without a class do not count in its loss.
ONLY_LABELLED = "only_labelled"


def leave_out(
    model: Model, docs: list[Doc], probabilities: Floats2d, backprop: Callable[[Floats2d], Any]
) -> tuple[Floats2d, Callable[[Floats2d], Any]]:
    """Exclude documents from the output of a classifier and from its gradient.

    Empty documents get probabilities of 0, whatever else is in the batch, as spaCy gives them where the whole batch is
    empty. A document without a class looks to `textcat` like one in which no class is true, so it passes back the
    probabilities minus zero: a gradient equal to the probabilities. This cannot happen for a document with a class,
    where 1 is subtracted from one of the probabilities.

    docs (list[Doc]): The input.
    probabilities (Floats2d): The output, shape (documents, classes).
    backprop (Callable): The backward pass; it takes a gradient of that shape.
    RETURNS (tuple): The new output and backward pass.
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
    """Documents to initialise a model with: the ones of a sample that are not empty.

    If all are, a placeholder is used, as a listener cannot be initialised from empty documents alone.
    """
    if not docs:
        return docs
    return [doc for doc in docs if len(doc)] or [Doc(docs[0].vocab, words=["a"])]
