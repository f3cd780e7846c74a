"""spaCy's own classifier over pooled token vectors, for incomplete corpora.

These also have empty documents and documents without a class.
"""

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
    """Build `spacy.TextCatReduce.v1` with the same output and gradient, except for what `leave_out` describes.

    tok2vec (Model): Maps documents to one array of token vectors each.
    exclusive_classes (bool): True: softmax over the classes, for `textcat`. False: an independent sigmoid per class,
        for `textcat_multilabel`.
    use_reduce_first (bool), use_reduce_last (bool), use_reduce_max (bool), use_reduce_mean (bool): How vectors are
        pooled; results are concatenated. At least one must be true.
    nO (int | None): The number of classes; None: set by the component.
    RETURNS (Model): Maps documents to probabilities, shape (documents, classes).
    RAISES (ValueError): All four are false.
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
    """Infer the number of classes from a sample of the truth."""
    model.layers[0].initialize(X=sample_of(X), Y=Y)
    if Y is not None and not model.has_dim("nO"):
        model.set_dim("nO", Y.shape[1])


def resize(model: Model, new_nO: int) -> Model:
    """Append classes to a model, as `add_label` of a trained `textcat` requires."""
    inner = model.layers[0]
    inner.attrs["resize_output"](inner, new_nO)
    model.set_ref("output_layer", inner.get_ref("output_layer"))
    model.set_dim("nO", new_nO, force=True)
    return model


def forward(model: Model, docs: list[Doc], is_train: bool) -> tuple[Floats2d, Callable[[Floats2d], Any]]:
    """Predict the probabilities of the classes."""
    return leave_out(model, docs, *model.layers[0](docs, is_train))


def rows_of_all() -> Model[list[Floats2d], list[Floats2d]]:
    """Create a layer that gives documents without rows one row of zeros, as a maximum over no rows is an error."""
    return Model("rows_of_all", rows_of_all_forward)


def rows_of_all_forward(
    model: Model, vectors: list[Floats2d], is_train: bool
) -> tuple[list[Floats2d], Callable[[list[Floats2d]], list[Floats2d]]]:
    """Add rows of zeros: the forward pass of `rows_of_all`."""
    # A listener returns an array of width 0 for an empty document.
    width = max(rows.shape[1] for rows in vectors)

    def backprop(gradients: list[Floats2d]) -> list[Floats2d]:
        return [gradient[: len(rows)] for gradient, rows in zip(gradients, vectors, strict=True)]

    return [rows if len(rows) else model.ops.alloc2f(1, width) for rows in vectors], backprop
