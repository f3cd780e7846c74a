"""Token vectors that go to the layers after a listener as they are, where there is nothing to pool."""

from collections.abc import Callable
from typing import Any

from spacy_transformers.data_classes import TransformerData
from spacy_transformers.layers import trfs2arrays
from spacy_transformers.layers.trfs2arrays import forward as pool
from thinc.api import Model
from thinc.types import Floats2d
from transformers.utils import ModelOutput


class TokenVectors(TransformerData):
    """The vectors of one document, one per token, and zeros for a token without pieces.

    Stored and loaded again they are spacy-transformers' own class, and are pooled as any other.
    """


def skip_pooling(model: Any) -> None:
    """Let the layers that pool pieces, in a component's model, pass on `TokenVectors` without copying them."""
    for node in model.walk() if isinstance(model, Model) else ():
        if node.name == trfs2arrays.__name__ and node.layers[0].name == "reduce_mean":
            node._func = forward


def forward(model: Model, docs: list[TransformerData], is_train: bool) -> tuple[list[Floats2d], Callable[[Any], Any]]:
    """The mean of each token's only vector: `trfs2arrays` with the same result, one view per document."""
    if not all(isinstance(data, TokenVectors) for data in docs):
        return pool(model, docs, is_train)
    states = [data.model_output.get("last_hidden_state") for data in docs]
    vectors = [model.ops.alloc2f(0, 0) if state is None else state[0] for state in states]

    def backprop(gradients: list[Floats2d]) -> list[TransformerData]:
        factor = model.attrs["grad_factor"]
        # Empty documents have no part in it.
        return [
            _gradient(data, gradient, factor)
            for data, state, gradient in zip(docs, states, gradients, strict=True)
            if state is not None
        ]

    return vectors, backprop


def _gradient(data: TransformerData, gradient: Floats2d, factor: float) -> TransformerData:
    gradient = gradient * factor
    if not data.align.lengths.all():
        gradient[data.align.lengths == 0] = 0.0
    return TransformerData(data.wordpieces, ModelOutput(last_hidden_state=gradient[None]), data.align)
