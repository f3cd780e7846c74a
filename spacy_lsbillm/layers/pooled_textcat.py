"""Classification of documents from one pooled vector, for spaCy's own `textcat` and `textcat_multilabel`."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
from spacy.tokens import Doc
from thinc.api import (
    Dropout,
    Model,
    ParametricAttention,
    chain,
    reduce_last,
    reduce_max,
    reduce_mean,
    reduce_sum,
)
from thinc.types import Floats2d, Ragged

from ..errors import SettingError
from ..values import check_choice
from .class_calibration import CALIBRATION, calibration_of, set_calibration
from .class_loss import BALANCED, CROSS_ENTROPY, LossSettings, balanced, sigmoid_loss, softmax_loss
from .growing import grow_output
from .left_out import ONLY_LABELLED, leave_out, sample_of
from .listening import guard, listeners_in
from .output_layer import output_layer
from .soft_classes import put_soft_gradient
from .soft_loss import soft_loss

# A model attribute: how often each class occurred in training.
COUNTS = "counts"
# Probabilities in training stay within these limits, the numbers of float32 next to 0 and 1. spaCy passes back the
# probabilities minus the truth, and 0 where there is none: a probability equal to the truth would count as unknown.
LIMITS = (float(np.finfo("f").tiny), float(1 - np.finfo("f").epsneg))
POOLINGS: dict[str, Callable[[], Model[Ragged, Floats2d]]] = {
    "last": reduce_last,
    "mean": reduce_mean,
    "max": reduce_max,
    "attention": lambda: chain(ParametricAttention(), reduce_sum()),
}


def build_pooled_textcat(
    tok2vec: Model[list[Doc], list[Floats2d]],
    exclusive_classes: bool,
    pooling: str = "mean",
    nO: int | None = None,
    loss: LossSettings = CROSS_ENTROPY,
    calibrated: bool = True,
) -> Model[list[Doc], Floats2d]:
    """Build a document classifier: token vectors pooled to one vector, dropout, and one linear layer.

    tok2vec (Model): Maps documents to one array of token vectors each. It includes all windows of a long document.
    exclusive_classes (bool): True: softmax over the classes, for `textcat`. False: an independent sigmoid per class,
        for `textcat_multilabel`.
    pooling (str): "last" (the last token, as in LS-LLaMA: Li et al., 2023), "mean", "max", or "attention" (a mean whose
        weights are learned). Tokens without a piece, whose vector is zero, are ignored.
    nO (int | None): The number of classes; None: set by the component.
    loss (LossSettings): How much rare classes count; a table of weights is not possible, as the names of classes are
        not known here.
    calibrated (bool): Apply the calibration that `spacy lsbillm calibrate` has found.
    RETURNS (Model): Maps documents to probabilities, shape (documents, classes). Its gradient is that of the loss,
        which excludes the documents described in `leave_out`.
    RAISES (SettingError): The pooling is unknown, or the weights are a table.
    """
    check_choice("pooling", pooling, POOLINGS)
    if isinstance(loss.class_weights, dict):
        raise SettingError(
            f"class_weights = {loss.class_weights!r} is not allowed for PooledTextCat, which does not know the names "
            f'of its classes. Use "balanced" or null.'
        )
    for listener in listeners_in(tok2vec):
        guard(listener)
    output = output_layer(nO)
    inner = chain(tok2vec, real_rows(), POOLINGS[pooling](), Dropout(0.0), output)
    return Model(
        "pooled_textcat",
        partial(forward, loss=loss, calibrated=calibrated),
        init=init,
        layers=[inner],
        dims={"nO": nO},
        attrs={
            "multi_label": not exclusive_classes,
            ONLY_LABELLED: exclusive_classes,
            COUNTS: [],
            CALIBRATION: {},
            "resize_output": resize,
        },
        refs={"tok2vec": tok2vec, "output_layer": output},
    )


def init(model: Model, X: list[Doc] | None = None, Y: Floats2d | None = None) -> None:
    """Infer the number of classes from a sample of the truth.

    RAISES (SettingError): `nO` was set to a different number.
    """
    output = model.get_ref("output_layer")
    if Y is not None and output.has_dim("nO") and output.get_dim("nO") != Y.shape[1]:
        raise SettingError(
            f"nO = {output.get_dim('nO')} does not fit: there are {Y.shape[1]} classes. Use null, so that it is set "
            f"automatically."
        )
    if Y is not None and not output.has_dim("nO"):
        output.set_dim("nO", Y.shape[1])
        model.set_dim("nO", Y.shape[1])
    model.layers[0].initialize(X=sample_of(X))


def resize(model: Model, new_nO: int) -> Model:
    """Append classes to a model, as `add_label` of a `textcat` requires; a model without a size is left as it is."""
    output = model.get_ref("output_layer")
    if output.has_param("W"):
        before = output.get_dim("nO")
        grow_output(model, range(before), new_nO)
        set_calibration(model, None)
        if counts := model.attrs.get(COUNTS):
            # One count per class if classes exclude each other, else two: all that are present, then all absent ones.
            parts = np.split(np.array(counts), len(counts) // before)
            model.attrs[COUNTS] = np.concatenate(
                [np.append(part, [0.0] * (new_nO - before)) for part in parts]
            ).tolist()
    return model


def is_pooled_textcat(model: Model) -> bool:
    """Whether a model was built by `build_pooled_textcat`."""
    return isinstance(model._func, partial) and model._func.func is forward


def teach_textcat(model: Model, teacher: Callable[[list[Doc]], Floats2d], columns: list[int]) -> None:
    """Use the probabilities of a teacher as targets where there is no gold.

    That is for classes without annotation, and, where classes exclude each other, in documents that have none of the
    annotated classes.

    model (Model): From `build_pooled_textcat`.
    teacher (Callable): Maps documents to probabilities, shape (documents, classes of the teacher).
    columns (list[int]): The index in the model of each of the teacher's classes.
    """
    model._func = partial(model._func, taught=partial(_teach, model, teacher, columns))


def _teach(
    model: Model, teacher: Callable[[list[Doc]], Floats2d], columns: list[int], docs: list[Doc]
) -> tuple[Floats2d, Any]:
    """The teacher's probabilities in the classes of the model, and which of these the teacher knows."""
    truth = model.ops.alloc2f(len(docs), model.get_ref("output_layer").get_dim("nO"))
    known = model.ops.xp.zeros(truth.shape[1], dtype=bool)
    chosen = model.ops.xp.asarray(columns)
    truth[:, chosen] = model.ops.asarray2f(teacher(docs))
    known[chosen] = True
    return truth, known


def forward(
    model: Model,
    docs: list[Doc],
    is_train: bool,
    loss: LossSettings,
    calibrated: bool = True,
    taught: Callable[[list[Doc]], tuple[Floats2d, Any]] | None = None,
) -> tuple[Floats2d, Callable[[Floats2d], Any]]:
    """Predict the probabilities of the classes.

    spaCy passes back the probabilities minus the truth. That is the gradient of cross-entropy with respect to the
    scores before softmax or sigmoid, so it is applied there directly. For documents with stored class probabilities
    (`soft_classes`), those are the truth.
    """
    scores, backprop = model.layers[0](docs, is_train)
    calibration = calibration_of(model)
    if calibration is not None and calibrated and not is_train:
        probabilities = calibration.probabilities(model, scores)
    else:
        activation = model.ops.sigmoid if model.attrs["multi_label"] else model.ops.softmax
        probabilities = activation(scores)
        if is_train:
            probabilities = model.ops.xp.clip(probabilities, *LIMITS)
    said = taught(docs) if taught is not None and is_train else None

    def backprop_loss(gradient: Floats2d) -> Any:
        if calibration_of(model) is not None:
            _forget_calibration(model)
        converted = gradient if loss.plain else _gradient(model, probabilities, gradient, loss)
        if said is not None:
            converted = converted + _taught_gradient(model, docs, probabilities, gradient, *said)
        return backprop(put_soft_gradient(model, docs, probabilities, converted, loss))

    return leave_out(model, docs, probabilities, backprop_loss)


def _forget_calibration(model: Model) -> None:
    set_calibration(model, None)
    warnings.warn(
        "a classifier with PooledTextCat was calibrated and is now being trained: its calibration is dropped, as it is "
        "not right for other weights. Calibrate the pipeline again when it is trained: python -m spacy lsbillm "
        "calibrate PIPELINE DEV --output OUTPUT.",
        stacklevel=2,
    )


def _taught_gradient(
    model: Model, docs: list[Doc], probabilities: Floats2d, given: Floats2d, shares: Floats2d, knows: Any
) -> Floats2d:
    """The gradient of cross-entropy to the teacher's probabilities, where the truth gives no gradient."""
    xp = model.ops.xp
    filled = xp.asarray([len(doc) > 0 for doc in docs], dtype=bool)[:, None]
    if model.attrs["multi_label"]:
        return (probabilities - shares) * (given == 0) * knows * filled
    _, gradient = soft_loss(xp, probabilities, shares, xp.zeros(shares.shape, dtype=bool))
    return gradient * ~given.any(axis=1, keepdims=True) * filled


def _gradient(model: Model, probabilities: Floats2d, given: Floats2d, loss: LossSettings) -> Floats2d:
    """Convert the gradient of cross-entropy to that of the loss in use.

    It stays zero for decisions whose truth is missing.
    """
    xp = model.ops.xp
    truth = xp.rint(probabilities - given)
    if model.attrs["multi_label"]:
        known = given != 0
        there = (truth * known).sum(axis=0)
        absent = known.sum(axis=0) - there
        counts = _seen(model, [*there.tolist(), *absent.tolist()])
        chosen = xp.ones_like(truth)
        if loss.class_weights == BALANCED:
            n_classes = truth.shape[1]
            pairs = [balanced(pair) for pair in zip(counts[n_classes:], counts[:n_classes], strict=True)]
            weights = xp.asarray(pairs, dtype="f")
            chosen = xp.where(truth > 0, weights[:, 1], weights[:, 0])
        _, gradient = sigmoid_loss(xp, probabilities, truth, chosen, loss)
        return gradient * known
    known = (given != 0).any(axis=1)
    counts = _seen(model, (truth * known[:, None]).sum(axis=0).tolist())
    classes = truth.argmax(axis=1)
    chosen = xp.asarray(balanced(counts) if loss.class_weights == BALANCED else [1.0] * len(counts), dtype="f")
    _, gradient = softmax_loss(xp, probabilities, classes, chosen[classes], loss)
    return gradient * known[:, None]


def _seen(model: Model, more: list[float]) -> list[float]:
    """Add counts to those of the classes so far, and return the sums."""
    before = model.attrs.get(COUNTS) or [0.0] * len(more)
    model.attrs[COUNTS] = [old + new for old, new in zip(before, more, strict=True)]
    return model.attrs[COUNTS]


def real_rows() -> Model[list[Floats2d], Ragged]:
    """Create a layer that removes rows of zeros.

    A document with no other rows keeps one, so that there is something to pool.
    """
    return Model("real_rows", real_rows_forward)


def real_rows_forward(
    model: Model, vectors: list[Floats2d], is_train: bool
) -> tuple[Ragged, Callable[[Ragged], list[Floats2d]]]:
    """Remove rows of zeros: the forward pass of `real_rows`."""
    xp = model.ops.xp
    lengths = [len(rows) for rows in vectors]
    # A listener returns an array of width 0 for an empty document.
    filled_arrays = [rows for rows in vectors if len(rows)] or [rows for rows in vectors if rows.shape[1]][:1]
    joined = xp.concatenate(filled_arrays or vectors)
    # On the CPU, as CuPy cannot repeat by an array.
    document = xp.asarray(np.repeat(np.arange(len(vectors)), lengths))
    kept = xp.flatnonzero(joined.any(axis=1))
    counts = xp.bincount(document[kept], minlength=len(vectors))
    # Each document's rows begin after the rows of those before it, including their rows of zeros.
    empty = counts == 0
    filled = counts + empty
    target = xp.arange(len(kept)) + (xp.cumsum(empty) - empty)[document[kept]]
    data = model.ops.alloc2f(int(filled.sum()), joined.shape[1])
    data[target] = joined[kept]

    def backprop(gradient: Ragged) -> list[Floats2d]:
        d_joined = xp.zeros_like(joined)
        d_joined[kept] = cast(Floats2d, gradient.data)[target]
        return xp.split(d_joined, np.cumsum(lengths)[:-1].tolist())

    return Ragged(data, model.ops.asarray1i(filled)), backprop
