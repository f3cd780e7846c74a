"""A forward pass in training that waits for the gradients of its listeners."""

from collections.abc import Callable, Sequence
from typing import Any

from spacy_transformers.data_classes import TransformerData
from thinc.api import Optimizer
from torch import Tensor

from ..layers import VectorBatch


class PendingUpdate:
    """Sums the gradients of all listeners, so that the backbone needs only one backward pass.

    output (VectorBatch): What the listeners received.
    backprop (Callable): Runs the backward pass with the summed gradient.
    listeners (int): The number of listeners that may send a gradient. One whose component is frozen, or has no
        annotation to learn from in this batch, never does.
    optimizer (Optimizer | None): The optimizer for the step after the backward pass.
    """

    def __init__(
        self, output: VectorBatch, backprop: Callable[[Any], Any], listeners: int, optimizer: Optimizer | None
    ):
        self.optimizer = optimizer
        self.heard = 0
        self._output = output
        self._backprop = backprop
        self._listeners = listeners
        self._sum: Tensor | None = None

    def add(self, gradients: Sequence[TransformerData]) -> float:
        """Add one listener's gradient: one entry per non-empty document. RETURNS (float): Its squared norm."""
        gradient = self._output.gradient([data.tensors for data in gradients])
        self.heard += 1
        self._sum = gradient if self._sum is None else self._sum + gradient
        return float((gradient**2).sum())

    @property
    def complete(self) -> bool:
        """Whether all listeners have sent their gradients."""
        return self.heard == self._listeners

    def finish(self) -> None:
        """Run the backward pass with the gradients received so far."""
        if self._sum is not None:
            self._backprop(self._output.with_gradient(self._sum))
