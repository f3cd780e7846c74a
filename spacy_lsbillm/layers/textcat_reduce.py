"""spaCy's own classifier over pooled token vectors, for corpora as they are: with empty documents, and with documents
that have no class."""

from collections.abc import Callable
from typing import Any

from spacy.ml.models.textcat import build_reduce_text_classifier
from spacy.tokens import Doc
from thinc.api import Model, chain
from thinc.types import Floats2d

from .left_out import ONLY_LABELLED, leave_out, sample_of
from .listening import guard, listeners_in


def build_textcat_reduce(
    tok2vec: Model[list[Doc], list[Floats2d]],
    exclusive_classes: bool,
    use_reduce_first: bool,
    use_reduce_last: bool,
    use_reduce_max: bool,
    use_reduce_mean: bool,
    nO: int | None = None,
) -> Model[list[Doc], Floats2d]:
    """`spacy.TextCatReduce.v1`, whose output and gradient are the same but for documents that `leave_out` names.

    tok2vec (Model): Documents to one array of token vectors each.
    exclusive_classes (bool): Softmax over the classes, for `textcat`; else each on its own, for `textcat_multilabel`.
    use_reduce_first (bool), use_reduce_last (bool), use_reduce_max (bool), use_reduce_mean (bool): What is pooled; at
        least one.
    nO (int | None): The number of classes; None: set by the component.
    RETURNS (Model): Documents to probabilities, shape (documents, classes).
    RAISES (ValueError): Nothing is pooled.
    """
    for listener in listeners_in(tok2vec):
        guard(listener)
    inner = build_reduce_text_classifier(
        chain(tok2vec, rows_of_all()),
        exclusive_classes,
        use_reduce_first,
        use_reduce_last,
        use_reduce_max,
        use_reduce_mean,
        nO,
    )
    return Model(
        "textcat_reduce",
        forward,
        init=init,
        layers=[inner],
        dims={"nO": nO},
        attrs={"multi_label": not exclusive_classes, ONLY_LABELLED: exclusive_classes, "resize_output": resize},
        refs={"tok2vec": tok2vec, "output_layer": inner.get_ref("output_layer")},
    )


def init(model: Model, X: list[Doc] | None = None, Y: Floats2d | None = None) -> None:
    """Take the number of classes from a sample of the truth."""
    model.layers[0].initialize(X=sample_of(X), Y=Y)
    if Y is not None and not model.has_dim("nO"):
        model.set_dim("nO", Y.shape[1])


def resize(model: Model, new_nO: int) -> Model:
    """Give a model more classes, as `add_label` of a trained `textcat` asks for."""
    inner = model.layers[0]
    inner.attrs["resize_output"](inner, new_nO)
    model.set_ref("output_layer", inner.get_ref("output_layer"))
    model.set_dim("nO", new_nO, force=True)
    return model


def forward(model: Model, docs: list[Doc], is_train: bool) -> tuple[Floats2d, Callable[[Floats2d], Any]]:
    """Probabilities of the classes."""
    return leave_out(model, docs, *model.layers[0](docs, is_train))


def rows_of_all() -> Model[list[Floats2d], list[Floats2d]]:
    """One row of zeros for documents without any, as a maximum over nothing is an error."""
    return Model("rows_of_all", rows_of_all_forward)


def rows_of_all_forward(
    model: Model, vectors: list[Floats2d], is_train: bool
) -> tuple[list[Floats2d], Callable[[list[Floats2d]], list[Floats2d]]]:
    """See `rows_of_all`."""
    # A listener gives an empty document an array without width.
    width = max(rows.shape[1] for rows in vectors)

    def backprop(gradients: list[Floats2d]) -> list[Floats2d]:
        return [gradient[: len(rows)] for gradient, rows in zip(gradients, vectors, strict=True)]

    return [rows if len(rows) else model.ops.alloc2f(1, width) for rows in vectors], backprop
