"""A forward pass in training that waits for the gradients of those who listened."""

from collections.abc import Callable, Sequence
from typing import Any

from spacy_transformers.data_classes import TransformerData
from thinc.api import Optimizer
from torch import Tensor

from ..layers import VectorBatch


class PendingUpdate:
    """The gradients of all listeners add up here and go through the backbone once.

    output (VectorBatch): What the listeners were given.
    backprop (Callable): Takes the gradient of that through the backbone.
    listeners (int): How many may send a gradient. One whose component is frozen, or has no annotation to learn from in
        this batch, never does.
    optimizer (Optimizer | None): To step with once the gradients are there.
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
        """Add one listener's gradient: one entry for each document that is not empty. RETURNS: Its squared norm."""
        gradient = self._output.gradient([data.tensors for data in gradients])
        self.heard += 1
        self._sum = gradient if self._sum is None else self._sum + gradient
        return float((gradient**2).sum())

    @property
    def complete(self) -> bool:
        """Whether all listeners have sent theirs."""
        return self.heard == self._listeners

    def finish(self) -> None:
        """Take what has come through the backbone."""
        if self._sum is not None:
            self._backprop(self._output.with_gradient(self._sum))
