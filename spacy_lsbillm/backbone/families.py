"""The decoder families that are known to work: each passes the mask, padding and batching checks in tests/."""

from collections.abc import Sequence

from torch import nn

from ..errors import BaseError

# `model_type` of a Hugging Face config -> where the causal LM keeps its decoder layers.
FAMILIES: dict[str, str] = {
    "llama": "model.layers",
    "mistral": "model.layers",
    "qwen2": "model.layers",
}


def check_family(model_type: str, name: str) -> None:
    """RAISES (BaseError): The model is not of a family that is known to work."""
    if model_type not in FAMILIES:
        raise BaseError(
            f"the base {name!r} is of type {model_type!r}, which is not a decoder-only family known to work here. "
            f"Families that do: {', '.join(sorted(FAMILIES))}."
        )


def decoder_layers(causal_lm: nn.Module, model_type: str) -> Sequence[nn.Module]:
    """The decoder layers of a causal LM, the first is next to the input."""
    layers = causal_lm.get_submodule(FAMILIES[model_type])
    assert isinstance(layers, nn.ModuleList)
    return list(layers)
