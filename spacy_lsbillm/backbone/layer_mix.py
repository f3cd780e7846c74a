"""A learned mix of layers as the output, instead of the last layer alone."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import MaskError, StorageError
from .mask import MaskPlan

FILE = "mix.safetensors"


class ScalarMix(nn.Module):
    """A learned mix of layers: `scale * sum_i softmax(weights)_i * states_i`.

    Peters et al., "Deep contextualized word representations", NAACL 2018, equation 1. It starts as the mean of the
    layers.

    layers (tuple[int, ...]): The layers that are mixed, counted from 0.
    """

    def __init__(self, layers: Sequence[int]):
        super().__init__()
        self.layers = tuple(layers)
        self.weights = nn.Parameter(torch.zeros(len(self.layers)))
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Mix the states of the layers.

        states (Sequence[Tensor]): One tensor of shape (batch, length, width) per mixed layer.
        RETURNS (Tensor): Shape (batch, length, width).
        """
        shares = torch.softmax(self.weights, 0) * self.scale
        mixed = states[0] * shares[0]
        for layer, share in zip(states[1:], shares[1:], strict=True):
            mixed = mixed + layer * share
        return mixed

    def write(self, folder: Path) -> None:
        """Write the learned values as a safetensors file."""
        save_file({name: value.detach().cpu() for name, value in self.named_parameters()}, folder / FILE)

    def read(self, folder: Path) -> None:
        """Read the values that `write` has written.

        RAISES (StorageError): The file is missing or damaged, or belongs to another mix.
        """
        try:
            self.load_state_dict(load_file(folder / FILE))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise StorageError(f"{folder / FILE} cannot be read: {error}. Copy the pipeline again.") from error


def mixed_layers(notation: str | None, n_layers: int) -> tuple[int, ...]:
    """The layers that `scalar_mix` names, in mask notation; none for null.

    RAISES (MaskError): The notation does not fit the number of layers, or names no layer.
    """
    if notation is None:
        return ()
    layers = tuple(i for i, named in enumerate(MaskPlan.parse(notation, n_layers, "scalar_mix").unmasked) if named)
    if not layers:
        raise MaskError(f"scalar_mix = {notation!r} names no layer to mix. Use null for the last layer alone.")
    return layers
