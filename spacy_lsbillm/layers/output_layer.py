"""The linear layer of a head.

On the CPU it multiplies with PyTorch, in as many threads as the backbone: thinc's own products use one thread and BLIS,
and take three times as long.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from thinc.api import Linear, Model, Ops, zero_init
from thinc.types import Floats2d


def output_layer(nO: int | None = None, nI: int | None = None) -> Model[Floats2d, Floats2d]:
    """Create thinc's `Linear`, initially zero, with the products of PyTorch."""
    layer: Model[Floats2d, Floats2d] = Linear(nO, nI, init_W=zero_init)
    # Its name stays, so that models are stored as before.
    layer._func = forward
    return layer


def forward(
    model: Model[Floats2d, Floats2d], X: Floats2d, is_train: bool
) -> tuple[Floats2d, Callable[[Floats2d], Floats2d]]:
    """Compute X @ W.T + b, and return it with a function for the gradient."""
    ops, W = model.ops, model.get_param("W")
    Y = _product(ops, X, W.T)
    Y += model.get_param("b")

    def backprop(dY: Floats2d) -> Floats2d:
        model.inc_grad("b", dY.sum(axis=0))
        model.inc_grad("W", _product(ops, dY.T, X))
        return _product(ops, dY, W)

    return Y, backprop


def _product(ops: Ops, left: Any, right: Any) -> Floats2d:
    if isinstance(left, np.ndarray):
        return torch.mm(_tensor(left), _tensor(right)).numpy()
    return ops.xp.matmul(left, right)


def _tensor(array: np.ndarray) -> torch.Tensor:
    # Torch warns of arrays that it could change but must not, such as vectors that were stored with a document.
    return torch.from_numpy(array if array.flags.writeable else array.copy())
