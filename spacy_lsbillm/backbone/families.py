"""The decoder families that are known to work: each passes the mask, padding and batching checks in tests/."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..errors import BaseError

AUTO = "auto"
ATTENTIONS = ("sdpa", "eager")


@dataclass(frozen=True)
class Family:
    """What has to be known of a family beside its `model_type`.

    decoder (str): Where a causal LM keeps the module that turns pieces into states.
    layers (str), norm (str): Where that keeps its layers, and the norm after the last one.
    attentions (tuple[str, ...]): The implementations that compute what the model was trained with, the best first.
    causal_buffer (str | None): A tensor of a layer's own with which it hides the future, whatever mask it is given.
    packs (bool): Whether the causal LM tells sequences that share a row apart by their positions.
    renamed (dict[str, str]): Names of stored tensors that newer versions of transformers read under another name.
    """

    decoder: str = "model"
    layers: str = "layers"
    norm: str = "norm"
    attentions: tuple[str, ...] = ATTENTIONS
    causal_buffer: str | None = None
    packs: bool = True
    renamed: dict[str, str] = field(default_factory=dict)


# By the `model_type` of a Hugging Face config.
FAMILIES: dict[str, Family] = {
    "cohere": Family(),
    "falcon": Family(decoder="transformer", layers="h", norm="ln_f", packs=False),
    "gemma": Family(),
    # SDPA leaves out the cap on its attention logits.
    "gemma2": Family(attentions=("eager",)),
    "gemma3_text": Family(),
    "gpt2": Family(decoder="transformer", layers="h", norm="ln_f", causal_buffer="attn.bias", packs=False),
    "gpt_neox": Family(decoder="gpt_neox", norm="final_layer_norm", renamed={"embed_out.weight": "lm_head.weight"}),
    "granite": Family(),
    "llama": Family(),
    "mistral": Family(),
    "olmo": Family(),
    "olmo2": Family(),
    "opt": Family(decoder="model.decoder", norm="final_layer_norm", packs=False),
    "phi": Family(norm="final_layernorm"),
    "phi3": Family(),
    "qwen2": Family(),
    "qwen3": Family(),
    "smollm3": Family(),
    "starcoder2": Family(),
}


def family_of(config: Any, name: str) -> Family:
    """The family of a base.

    config (PretrainedConfig): The base's.
    name (str): The base's, for the message.
    RAISES (BaseError): It is not known to work, or this variant of it is not.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise BaseError(
            f"the base {name!r} is of type {config.model_type!r}, which is not a decoder-only family known to work "
            f"here. Families that do: {', '.join(sorted(FAMILIES))}."
        )
    if getattr(config, "alibi", False):
        raise BaseError(
            f"the base {name!r} ({config.model_type!r}) has ALiBi positions, which are defined to the left alone and "
            f"cannot be unmasked. Use one with rotary positions."
        )
    if getattr(config, "use_bidirectional_attention", False):
        raise BaseError(f"the base {name!r} ({config.model_type!r}) is no causal model: it attends in both directions.")
    return family


def attention_for(family: Family, asked: str, name: str) -> str:
    """The attention implementation: the family's best for "auto".

    RAISES (BaseError): The one asked for does not compute what the model was trained with.
    """
    if asked == AUTO:
        return family.attentions[0]
    if asked not in family.attentions:
        raise BaseError(
            f"attention = {asked!r} leaves out a part of the attention of {name!r}. "
            f"Use one of: {', '.join(map(repr, (AUTO, *family.attentions)))}."
        )
    return asked


def decoder_of(causal_lm: PreTrainedModel, family: Family) -> nn.Module:
    """The part of a causal LM that turns pieces into states."""
    return causal_lm.get_submodule(family.decoder)


def layers_of(decoder: nn.Module, family: Family) -> Sequence[nn.Module]:
    """The layers of a decoder, the first is next to the input."""
    return list(decoder.get_submodule(family.layers))  # type: ignore[call-overload]
