"""A forward pass in training that waits for the gradients of those who listened."""

from collections.abc import Callable, Sequence
from typing import Any

from spacy_transformers.data_classes import FullTransformerBatch, TransformerData
from thinc.api import Optimizer

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
        self._sum: FullTransformerBatch | None = None

    def add(self, gradients: Sequence[TransformerData]) -> float:
        """Add one listener's gradient: one entry for each document that is not empty. RETURNS: Its squared norm."""
        batch = self._output.unsplit_by_doc([data.tensors for data in gradients])
        gradient = batch.model_output.last_hidden_state
        self.heard += 1
        if self._sum is None:
            self._sum = batch
        else:
            self._sum.model_output.last_hidden_state += gradient
        return float((gradient**2).sum())

    @property
    def complete(self) -> bool:
        """Whether all listeners have sent theirs."""
        return self.heard == self._listeners

    def finish(self) -> None:
        """Take what has come through the backbone."""
        if self._sum is not None:
            self._backprop(self._sum)
