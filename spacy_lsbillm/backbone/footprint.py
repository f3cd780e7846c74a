"""How much memory a base takes in training and in prediction, computed from its config alone.

Bytes, where `s` is the size of a number of the base's dtype (4 for float32, 2 for bfloat16 and float16), and the pieces
of a text that goes through the layers `repeat` + 1 times are counted as often:

**Weights.** `s` per parameter, tied ones once, with the language-model head, which is loaded although labels do not
need it, and only the first `depth` layers. In "nf4" and "fp4" a weight of a linear layer in the decoder has half a
byte, each block of 64 weights one byte for its scale, and each 256 of these scales one of 4 bytes; in "int8" a weight
has one byte, and each output one scale of 4. Embeddings, norms and experts that are stored in one tensor are not
quantised.

**Adapter.** 4 per parameter, as it is always in float32: r * (inputs + outputs) for each adapted linear layer.

**Optimizer.** 12 per parameter of the adapter for Adam's two moments and the averages of the parameters, and 4 for the
gradient. A step puts all parameters, gradients and results into rows of their own, another 12, when the activations are
gone. The frozen base has none of these.

**Activations of a training step**, which the backward pass needs, for each piece of the batch and each layer:

- norms: 4 * width each, as they compute in float32;
- attention: 4 * s * heads * head size for queries, keys and values (the latter two once per head of the queries) and
  the result; s * length for the layer's own copy of the mask; with attention = "eager" also the weights of all
  positions, 4 * heads * length, again in the base's dtype if that is not float32, and again if they are capped;
- the feed-forward block: s * (outputs of its first linear layers, and of the activation function if these are
  multiplied by it, or if it is computed in several operations), times the number of experts that a piece goes through;
- each adapted linear layer: its input after dropout, 4 * inputs, the mask of dropout, 4 * inputs on a CPU and inputs
  on a GPU, and what is between the adapter's two matrices, 4 * r. For a frozen linear layer nothing is kept: the
  gradient of its input needs its weight alone.

With gradient checkpointing, s * width for each piece and each layer in their place, and all of the above for one layer
and one forward pass. Without an adapter nothing is kept.

**Working memory of one forward pass**, which ends with it, and that of its backward pass: for each piece of the pass
s * (5 of the widest states of a layer and 3 of its width), and the mask; with quantised weights the largest weight of a
layer in the dtype of the arithmetic. And 4 * width twice for each piece of the batch, for the result.

**The allocator.** On a CPU, the C library keeps much of what was freed, in parts that are too small for what comes
next: 0.65 of the activations of all layers, recomputed ones included, and in prediction the working memory once more.
Quantised weights are unpacked for each product; where the largest of a layer takes less than 32 MiB unpacked, beyond
which glibc returns what is freed, 0.65 of all of them. (Measured with glibc 2.36, where the first varied from 0.2 to
0.85 between bases and runs.)

Not counted are the process itself, with the libraries in it; the heads; the files of the weights while they are read,
which the system may drop from memory; and what the allocator of a GPU keeps.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from ..errors import BaseError, SettingError
from ..values import check_choice, is_whole
from .adapter import LINEAR, LoraSettings, add_adapter, check_targets, is_adapted
from .base import BaseSettings
from .base_config import config_dtype, longest_position, read_config
from .families import attention_for, decoder_of, layers_of
from .int8_files import is_int8
from .model import BackboneSettings
from .proved import family_of
from .size import BaseSize
from .skeleton import skeleton

DEVICES = CPU, GPU = "cpu", "gpu"
# Bytes of a number.
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
FLOAT32 = 4
# bitsandbytes: weights per scale, and scales per scale of their own.
BLOCK, BLOCKS = 64, 256
# In float32: two moments, and averages (`use_averages`, which the configs of `init-config` have).
OPTIMIZER_STATES = 3
# In float32: parameters and gradients in one row each, and the changed parameters.
STEP_ROWS = 3
# States of a layer that exist at once, beside what is kept: the widest, and those of the base's width.
WIDEST, OTHERS = 5, 3
# What the C library's allocator keeps on a CPU: a share of all activations, and of prediction's working memory.
HELD_IN_TRAINING, HELD_IN_PREDICTION = 0.65, 1
# The same share of unpacked weights, unless they are as large as what glibc always returns (M_MMAP_THRESHOLD_MAX).
ALWAYS_RETURNED = 32 * 2**20
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
        """Parameters of the adapter."""
        return self.outside_adapter + sum(layer.adapter for layer in self.used_layers(depth))


@dataclass(frozen=True)
class Work:
    """What goes through a base at once.

    batch_pieces (int): Pieces of the documents in a batch, of training or of prediction.
    pass_pieces (int): Maximum pieces of one forward pass. In training, what all passes of a batch keep adds up.
    length (int): Pieces in a row, which attend to each other.
    repeat (int): Copies of a text before the one whose states are used. `batch_pieces` and `length` count one.
    device (str): "cpu" or "gpu".
    """

    batch_pieces: int
    pass_pieces: int
    length: int
    repeat: int = 0
    device: str = CPU

    def __post_init__(self) -> None:
        check_choice("device", self.device, DEVICES)
        for setting, least in (("batch_pieces", 1), ("pass_pieces", 1), ("length", 1), ("repeat", 0)):
            value = getattr(self, setting)
            if not (is_whole(value) and value >= least):
                raise SettingError(
                    f"{setting} = {value!r} is not allowed: it must be a whole number, at least {least}."
                )

    @property
    def computed(self) -> int:
        """Pieces of a batch that go through the layers, with all copies."""
        return self.batch_pieces * (self.repeat + 1)

    @property
    def row(self) -> int:
        """Pieces of a row that go through the layers, with all copies."""
        return self.length * (self.repeat + 1)

    @property
    def at_once(self) -> int:
        """Pieces in one forward pass: at least one row, unless the batch is smaller."""
        return min(self.computed, max(self.pass_pieces, self.row))


@dataclass(frozen=True)
class Footprint:
    """Bytes that a base takes beside the process itself.

    weights (int): Its weights.
    adapter (int): The adapter's.
    optimizer (int): The optimizer's states of the adapter, and its gradients.
    activations (int): What a training step keeps for the backward pass, and its working memory; or the rows of the
        optimizer's step, if they take more.
    prediction_work (int): The working memory of prediction.
    second_copy (int): Weights with the adapter folded in, which prediction makes if they take at most half of the free
        memory (`fold_adapter`); 0 for quantised weights.
    """

    weights: int
    adapter: int
    optimizer: int
    activations: int
    prediction_work: int
    second_copy: int

    @property
    def training(self) -> int:
        """All that training takes."""
        return self.weights + self.adapter + self.optimizer + self.activations

    @property
    def prediction(self) -> int:
        """What prediction takes at least, without the second copy."""
        return self.weights + self.adapter + self.prediction_work


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


def dtype_of(shape: BaseShape, dtype: str) -> str:
    """The dtype of weights and arithmetic for a setting, of which "auto" stands for the one in the config."""
    return (shape.dtype or "float32") if dtype == "auto" else dtype


def footprint_of(shape: BaseShape, settings: BackboneSettings, work: Work) -> Footprint:
    """Compute the footprint of a base with these settings.

    settings (BackboneSettings): With the adapter for which the shape was read.
    RAISES (SettingError): The base has fewer layers than `depth`.
    """
    base = settings.base
    layers, number = shape.used_layers(base.depth), BYTES[dtype_of(shape, base.dtype)]
    adapter = FLOAT32 * shape.adapter_parameters(base.depth)
    predicting = _working(shape, layers, base, work, number)
    if work.device == CPU:
        predicting += HELD_IN_PREDICTION * predicting + _held(0, layers, base, work, number)
    # Without an adapter, no gradient goes through the base: it predicts.
    activations = predicting if shape.lora is None else _activations(shape, layers, settings, work, number)
    return Footprint(
        weights=number * shape.outside + sum(_weights(layer, number, base.quantization) for layer in layers),
        adapter=adapter,
        optimizer=(OPTIMIZER_STATES + 1) * adapter,
        activations=max(activations, STEP_ROWS * adapter),
        prediction_work=predicting,
        second_copy=0 if base.quantization else number * sum(layer.adapted_numbers for layer in layers),
    )


def _weights(layer: LayerShape, number: int, quantization: str | None) -> int:
    if quantization is None:
        return number * (layer.linear + layer.other)
    if quantization == "int8":
        return layer.linear + FLOAT32 * layer.outputs + number * layer.other
    scales = math.ceil(layer.linear / BLOCK)
    return layer.linear // 2 + scales + FLOAT32 * math.ceil(scales / BLOCKS) + number * layer.other


def _activations(
    shape: BaseShape, layers: Sequence[LayerShape], settings: BackboneSettings, work: Work, number: int
) -> int:
    """What a training step keeps until the backward pass, its working memory, and what the allocator keeps."""
    kept = [kept_in_layer(shape, layer, work, number) for layer in layers]
    everything = sum(kept) * work.computed
    needed = everything
    if settings.gradient_checkpointing:
        needed = len(layers) * number * shape.size.width * work.computed + max(kept) * work.at_once
    held = _held(everything, layers, settings.base, work, number)
    return needed + _working(shape, layers, settings.base, work, number) + held


def _held(activations: int, layers: Sequence[LayerShape], base: BaseSettings, work: Work, number: int) -> int:
    """What the allocator keeps of all activations, and of unpacked weights."""
    if work.device != CPU:
        return 0
    small = [number * layer.linear for layer in layers if number * layer.largest < ALWAYS_RETURNED]
    return round(HELD_IN_TRAINING * (activations + (sum(small) if base.quantization else 0)))


def kept_in_layer(shape: BaseShape, layer: LayerShape, work: Work, number: int) -> int:
    """Bytes that a layer keeps of one piece for the backward pass, see the module's text.

    number (int): Bytes of a number of the base's dtype.
    """
    attention = number * (4 * layer.attended + work.row)
    if shape.attention == "eager":
        copies = FLOAT32 + (number if number < FLOAT32 else 0) + (number if shape.capped else 0)
        attention += copies * shape.heads * work.row
    lora = shape.lora
    dropout = 0 if lora is None or not lora.dropout else (FLOAT32 if work.device == CPU else 1)
    rank = 0 if lora is None else lora.r
    adapted = (FLOAT32 + dropout) * layer.adapted_inputs + FLOAT32 * rank * layer.adapted
    return FLOAT32 * layer.norms + attention + number * layer.feed_forward + adapted


def _working(shape: BaseShape, layers: Sequence[LayerShape], base: BaseSettings, work: Work, number: int) -> int:
    """What exists only while a forward pass, or its backward pass, runs."""
    width = shape.size.width
    states = WIDEST * max(layer.widest for layer in layers) + OTHERS * width
    # The mask is boolean, then a number for each pair of positions.
    one_pass = work.at_once * (number * states + (number + 1) * work.row)
    unpacked = number * max(layer.largest for layer in layers) if base.quantization else 0
    return one_pass + unpacked + 2 * FLOAT32 * width * work.batch_pieces
