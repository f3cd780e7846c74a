"""The structure of a family's models, as far as it matters here, and how it is detected."""

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import BaseError

AUTO = "auto"
ATTENTIONS = ("sdpa", "eager")


@dataclass(frozen=True)
class Family:
    """Where a causal language model keeps its parts, and what it supports.

    decoder (str): Name of the module that turns pieces into states.
    layers (str): Name of its list of layers, relative to the decoder.
    norm (str | None): Name of the norm after the last layer, relative to the decoder; None if there is none.
    attentions (tuple[str, ...]): The implementations that compute what the model was trained with, the best first.
    packs (bool): Whether several sequences may share a row, separated by their positions.
    """

    decoder: str = "model"
    layers: str = "layers"
    norm: str | None = "norm"
    attentions: tuple[str, ...] = ATTENTIONS
    packs: bool = True

    def as_block(self) -> dict[str, Any]:
        """The family as a block for a JSON file."""
        return {**asdict(self), "attentions": list(self.attentions)}

    @classmethod
    def read(cls, block: dict[str, Any]) -> "Family":
        """Create a family from a block that `as_block` returned."""
        return cls(**{**block, "attentions": tuple(block["attentions"])})


def attention_for(family: Family, asked: str, name: str) -> str:
    """The attention implementation to use: the requested one, or the family's best for "auto".

    RAISES (BaseError): The requested one does not compute what the model was trained with.
    """
    if asked == AUTO:
        return family.attentions[0]
    if asked not in family.attentions:
        raise BaseError(
            f"attention = {asked!r} does not compute the full attention of {name!r}. "
            f"Use one of: {', '.join(map(repr, (AUTO, *family.attentions)))}."
        )
    return asked


def decoder_of(causal_lm: PreTrainedModel, family: Family) -> nn.Module:
    """The part of a causal LM that turns pieces into states."""
    return causal_lm.get_submodule(family.decoder)


def layers_of(decoder: nn.Module, family: Family) -> Sequence[nn.Module]:
    """The layers of a decoder, from the input on."""
    return list(decoder.get_submodule(family.layers))  # type: ignore[call-overload]


def find_layers(causal_lm: PreTrainedModel) -> tuple[str, str]:
    """Find the decoder of a causal LM, and the layers of the decoder.

    RETURNS (tuple): The name of the decoder, and that of the list of layers relative to it.
    RAISES (BaseError): No list of modules has as many entries as the config has layers, or no module around it takes
        pieces.
    """
    count = causal_lm.config.num_hidden_layers
    lists = [
        name
        for name, module in causal_lm.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and len(list(module.parameters())) > 0
    ]
    if not lists:
        raise BaseError(f"{type(causal_lm).__name__} has no list of {count} layers")
    path = min(lists, key=lambda name: name.count("."))
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        decoder = causal_lm.get_submodule(".".join(parts[:end]))
        if "input_ids" in inspect.signature(decoder.forward).parameters:
            return ".".join(parts[:end]), ".".join(parts[end:])
    raise BaseError(f"{type(causal_lm).__name__} keeps its layers in {path!r}, and no module around them takes pieces")


def find_norm(layers: str, outputs: dict[str, Any], last: Tensor) -> str | None:
    """Find the module after the last layer whose output is the decoder's, in whatever shape.

    layers (str): Name of the list of layers, relative to the decoder.
    outputs (dict): The output of each child of the decoder in a forward pass, by name.
    last (Tensor): The last layer's states, as the decoder returned them in that pass.
    """
    inside = layers.split(".")[0]
    norms = [
        name
        for name, output in outputs.items()
        if name != inside
        and isinstance(output, Tensor)
        and output.numel() == last.numel()
        and torch.equal(output.reshape(last.shape), last)
    ]
    return norms[-1] if norms else None
