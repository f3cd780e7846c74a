"""The shape of a base, read from its config: the numbers that decide how much memory and arithmetic it takes."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from ..errors import BaseError, SettingError
from .adapter import LINEAR, LoraSettings, add_adapter, check_targets, is_adapted
from .base import BaseSettings
from .base_config import config_dtype, longest_position, read_config
from .families import attention_for, decoder_of, layers_of
from .int8_files import is_int8
from .proved import family_of
from .size import BaseSize
from .skeleton import skeleton

# Activation functions that transformers computes in several operations, and how many more of their values are kept.
COMPOSED = {"gelu_new": 3, "gelu_fast": 3, "quick_gelu": 1}
ATTENTION = re.compile("attn|attention", re.IGNORECASE)


@dataclass(frozen=True)
class LayerShape:
    """What decides how much memory one layer of a decoder takes.

    linear (int): Numbers in the weights of its linear layers.
    outputs (int): Outputs of these.
    largest (int): Numbers in the largest of these weights.
    other (int): Numbers in all other parameters.
    norms (int): Numbers that its norms normalise, added up.
    attended (int): Width of the attention's result: heads times head size.
    feed_forward (int): Numbers of the feed-forward block that the backward pass needs.
    widest (int): The largest width of states in it.
    used (int): Numbers in the weights that one piece meets: in a mixture of experts not all.
    adapter (int): Numbers in the adapter's matrices.
    adapted (int): The number of adapted linear layers.
    adapted_inputs (int): Inputs of these, added up.
    adapted_numbers (int): Numbers in the weights of these.
    """

    linear: int
    outputs: int
    largest: int
    other: int
    norms: int
    attended: int
    feed_forward: int
    widest: int
    used: int
    adapter: int = 0
    adapted: int = 0
    adapted_inputs: int = 0
    adapted_numbers: int = 0


@dataclass(frozen=True)
class BaseShape:
    """What decides how much memory and arithmetic a base takes, read from its config.

    size (BaseSize): Its size, with all layers.
    layers (tuple): One `LayerShape` per layer, from the input on.
    outside (int): Parameters outside of the layers: the embedding, and a head that is not tied to it.
    outside_adapter (int): Numbers in the adapter's matrices there.
    heads (int): Heads of the attention.
    attention (str): The implementation that is used: "sdpa" or "eager".
    capped (bool): Whether the scores of the attention are capped.
    packs (bool): Whether short texts share rows.
    dtype (str | None): The dtype in the config, for which "auto" stands.
    lora (LoraSettings | None): The adapter that was counted.
    """

    size: BaseSize
    layers: tuple[LayerShape, ...]
    outside: int
    outside_adapter: int
    heads: int
    attention: str
    capped: bool
    packs: bool
    dtype: str | None
    lora: LoraSettings | None

    def used_layers(self, depth: int | None) -> tuple[LayerShape, ...]:
        """The first `depth` layers.

        RAISES (SettingError): It has fewer.
        """
        if depth is not None and depth > len(self.layers):
            raise SettingError(f"depth = {depth} is more than the {len(self.layers)} layers of the base.")
        return self.layers[:depth]

    def parameters(self, depth: int | None = None) -> int:
        """Parameters of the base with its first layers, tied ones counted once."""
        return self.outside + sum(layer.linear + layer.other for layer in self.used_layers(depth))

    def adapter_parameters(self, depth: int | None = None) -> int:
        """Parameters of the adapter of a base with its first layers."""
        return self.outside_adapter + sum(layer.adapter for layer in self.used_layers(depth))


def shape_of(folder: Path, name: str, lora: LoraSettings | None, attention: str = "auto") -> BaseShape:
    """Read the shape of a base from its config.json. Its weights need not be there.

    folder (Path), name (str): Where the config is, and the base's name for messages.
    lora (LoraSettings | None): The adapter; None: the base stays frozen.
    RAISES (BaseError): It is no base that can be used here.
    RAISES (AdapterError): The adapter does not fit it.
    """
    config = read_config(folder, BaseSettings(name))
    if is_int8(folder):
        raise BaseError(
            f"{folder} holds weights in eight bits for prediction alone. Name the base they were made from."
        )
    family = family_of(config, name)
    model = skeleton(config)
    model.tie_weights()
    layers = layers_of(decoder_of(model, family), family)
    inside = {id(value) for layer in layers for value in layer.parameters()}
    parameters = list(model.parameters())
    size = BaseSize(
        config.num_hidden_layers,
        config.hidden_size,
        sum(value.numel() for value in parameters),
        longest_position(config),
    )
    # Before the adapter's own linear layers are added.
    plain = [_layer_shape(layer, config) for layer in layers]
    if lora is not None:
        check_targets(model, lora)
        add_adapter(model, lora)
    shapes = tuple(_with_adapter(shape, layer) for shape, layer in zip(plain, layers, strict=True))
    added = sum(value.numel() for value in model.parameters()) - sum(value.numel() for value in parameters)
    return BaseShape(
        size,
        shapes,
        sum(value.numel() for value in parameters if id(value) not in inside),
        added - sum(shape.adapter for shape in shapes),
        config.num_attention_heads,
        attention_for(family, attention, name),
        bool(getattr(config, "attn_logit_softcapping", None)),
        family.packs,
        config_dtype(config),
        lora,
    )


def _layer_shape(layer: nn.Module, config: Any) -> LayerShape:
    """The shape of a layer without an adapter."""
    width = config.hidden_size
    linear = {name: module for name, module in layer.named_modules() if isinstance(module, LINEAR)}
    # The last linear layer of the attention takes its result. Heads may differ in size between layers.
    attended = next((_ends(linear[name])[0] for name in reversed(linear) if ATTENTION.search(name)), width)
    weights = [module.weight.numel() for module in linear.values()]
    feed_forward = [_ends(module) for name, module in linear.items() if not ATTENTION.search(name)]
    norms = [name for name, module in layer.named_modules() if "norm" in type(module).__name__.lower()]
    numbers = sum(value.numel() for value in layer.parameters())
    in_experts = sum(value.numel() for name, value in layer.named_parameters() if ".experts." in name)
    if in_experts:
        met, of = _experts(config)
        inner = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
        kept, not_met = met * (3 * inner + width), in_experts - in_experts * met // of
    else:
        kept, not_met = _kept(feed_forward, _activation(config)), 0
    return LayerShape(
        linear=sum(weights),
        outputs=sum(_ends(module)[1] for module in linear.values()),
        largest=max(weights, default=0),
        other=numbers - sum(weights),
        norms=sum(attended if ATTENTION.search(name) else width for name in norms),
        attended=attended,
        feed_forward=kept,
        widest=max(width, kept // 3),
        used=numbers - not_met,
    )


def _with_adapter(shape: LayerShape, layer: nn.Module) -> LayerShape:
    """The shape of a layer with the adapter that was added to it."""
    adapted: list[Any] = [module for module in layer.modules() if is_adapted(module)]
    bases = [module.get_base_layer() for module in adapted]
    return replace(
        shape,
        adapter=sum(value.numel() for name, value in layer.named_parameters() if "lora_" in name),
        adapted=len(adapted),
        adapted_inputs=sum(_ends(base)[0] for base in bases),
        adapted_numbers=sum(base.weight.numel() for base in bases),
    )


def _ends(module: Any) -> tuple[int, int]:
    """Inputs and outputs of a linear layer."""
    if isinstance(module, Conv1D):
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    return module.in_features, module.out_features


def _activation(config: Any) -> str | None:
    """The name of the activation function of the feed-forward blocks."""
    return getattr(config, "hidden_act", None) or getattr(config, "activation_function", None)


def _kept(feed_forward: list[tuple[int, int]], activation: str | None) -> int:
    """What the backward pass needs of a feed-forward block, whose last linear layer leads back to the width."""
    if not feed_forward:
        return 0
    inner, outputs = feed_forward[-1][0], sum(out for _, out in feed_forward[:-1])
    multiplied = inner if outputs >= 2 * inner else 0
    return outputs + multiplied + COMPOSED.get(activation or "", 0) * inner


def _experts(config: Any) -> tuple[int, int]:
    """The number of experts that a piece goes through, and of all."""
    for setting in ("num_experts", "num_local_experts", "n_routed_experts"):
        number = getattr(config, setting, None)
        if number:
            return getattr(config, "num_experts_per_tok", None) or number, number
    return 1, 1
