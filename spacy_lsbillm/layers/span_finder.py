"""spaCy's own model of the `span_finder`, changed in two points.

It accepts batches in which all documents are empty, and it can be pickled for other processes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from spacy.tokens import Doc
from thinc.api import Model, chain, with_array
from thinc.types import Floats2d

from .left_out import sample_of
from .listening import guard, listeners_in


def build_span_finder(
    tok2vec: Model[list[Doc], list[Floats2d]], scorer: Model[Floats2d, Floats2d]
) -> Model[list[Doc], Floats2d]:
    """Build `spacy.SpanFinder.v1` so that it is not run where a batch has no token.

    A listener has no vectors then, and spaCy's other components do not run their models either.

    tok2vec (Model): Maps documents to one array of token vectors each.
    scorer (Model): Maps token vectors to two scores each: that a span begins there, and that one ends there.
    RETURNS (Model): Maps documents to scores, shape (tokens, 2).
    """
    for listener in listeners_in(tok2vec):
        guard(listener)
    inner: Model = chain(tok2vec, with_array(scorer))
    return Model("span_finder", forward, init=init, layers=[inner], refs={"tok2vec": tok2vec, "scorer": scorer})


def init(model: Model, X: list[Doc] | None = None, Y: Floats2d | None = None) -> None:
    """Infer the width of the vectors from a sample."""
    model.layers[0].initialize(X=sample_of(X), Y=Y)


def forward(model: Model, docs: list[Doc], is_train: bool) -> tuple[Floats2d, Callable[[Floats2d], Any]]:
    """Compute the two scores of each token; no rows if there is no token."""
    if not any(len(doc) for doc in docs):
        return model.ops.alloc2f(0, 2), lambda gradient: []
    scores, backprop_each = model.layers[0](docs, is_train)
    ends = np.cumsum([len(rows) for rows in scores])[:-1].tolist()

    def backprop(gradient: Floats2d) -> Any:
        return backprop_each(model.ops.xp.split(gradient, ends))

    return model.ops.xp.concatenate(scores), backprop
