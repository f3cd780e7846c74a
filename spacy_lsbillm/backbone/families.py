"""How the model of a family is made, as far as it matters here, and how that is found out."""

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
    """Where a causal language model keeps what is used here, and what it can do.

    decoder (str): The module that turns pieces into states.
    layers (str): Its list of layers, seen from the decoder.
    norm (str | None): The norm after the last layer, seen from the decoder; None if there is none.
    attentions (tuple[str, ...]): The implementations that compute what the model was trained with, the best first.
    packs (bool): Whether it tells sequences that share a row apart by their positions.
    """

    decoder: str = "model"
    layers: str = "layers"
    norm: str | None = "norm"
    attentions: tuple[str, ...] = ATTENTIONS
    packs: bool = True

    def as_block(self) -> dict[str, Any]:
        """As it stands in a JSON file."""
        return {**asdict(self), "attentions": list(self.attentions)}

    @classmethod
    def read(cls, block: dict[str, Any]) -> "Family":
        """The inverse of `as_block`."""
        return cls(**{**block, "attentions": tuple(block["attentions"])})


def attention_for(family: Family, asked: str, name: str) -> str:
    """The attention implementation: the family's best for "auto".

    RAISES (BaseError): The one asked for does not compute what the model was trained with.
    """
    if asked == AUTO:
        return family.attentions[0]
    if asked not in family.attentions:
        raise BaseError(
            f"attention = {asked!r} does not compute the whole attention of {name!r}. "
            f"Use one of: {', '.join(map(repr, (AUTO, *family.attentions)))}."
        )
    return asked


def decoder_of(causal_lm: PreTrainedModel, family: Family) -> nn.Module:
    """The part of a causal LM that turns pieces into states."""
    return causal_lm.get_submodule(family.decoder)


def layers_of(decoder: nn.Module, family: Family) -> Sequence[nn.Module]:
    """The layers of a decoder, the first is next to the input."""
    return list(decoder.get_submodule(family.layers))  # type: ignore[call-overload]


def find_layers(causal_lm: PreTrainedModel) -> tuple[str, str]:
    """Where a causal LM keeps its decoder, and that its layers.

    RAISES (BaseError): There is no list of as many modules as the config has layers, or no module around it that takes
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
    """The module behind the last layer whose output is the decoder's, in whatever shape.

    layers (str): Where the layers are, seen from the decoder.
    outputs (dict): What each child of the decoder has given in a forward pass, by its name.
    last (Tensor): The last layer's states, as the decoder gave them in that pass.
    """
    inside = layers.split(".")[0]
    found = [
        name
        for name, output in outputs.items()
        if name != inside
        and isinstance(output, Tensor)
        and output.numel() == last.numel()
        and torch.equal(output.reshape(last.shape), last)
    ]
    return found[-1] if found else None
