"""How much memory a base takes in training and in prediction, computed from its shape.

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
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import SettingError
from ..values import check_choice, is_whole
from .base import BaseSettings
from .base_shape import BaseShape, LayerShape
from .model import BackboneSettings

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
        """The memory of training: weights, adapter, optimizer and activations."""
        return self.weights + self.adapter + self.optimizer + self.activations

    @property
    def prediction(self) -> int:
        """What prediction takes at least, without the second copy."""
        return self.weights + self.adapter + self.prediction_work


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
