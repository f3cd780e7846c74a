"""How fast a base predicts and trains on a machine, estimated from its arithmetic and a short measurement.

Operations for one piece, a multiplication and an addition each counted as one:

**Prediction**, and the forward pass of training: 2 for each weight that the piece meets in the layers (all of them,
except in a mixture of experts; the embedding is only looked up, and the language-model head is not used), and 4 * row *
heads * head size for the attention of each layer, as each piece is compared with all of its row and their values are
added up. Without a second copy of the weights 2 more for each parameter of the adapter.

**The backward pass**: 2 for each of these weights, to pass the gradient on to the layer below. The other 2 of full
training, for the gradient of the weights themselves, are not needed, as the base is frozen. For the adapter, which has
both, 4 per parameter. For the attention, twice those of the forward pass. With gradient checkpointing each layer goes
forward a second time.

Training thus takes about 4 operations for each weight of the base and 6 for each of the adapter, where full training
would take 6 for each weight. Without an adapter it has no backward pass.

The measurement multiplies matrices of the base's width, for about a second. Layers reach only a part of that speed, as
they also normalise, add and move states: `REACHED` has the part that was measured (benchmarks/fit.py).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..errors import SettingError
from .base_shape import BaseShape
from .footprint import Work
from .model import BackboneSettings

# How long each of the two products is measured, and warmed up.
SECONDS, WARM_UP = 0.4, 0.1
# The share of the measured speed that whole layers reach. docs/fit-your-machine.md has the measurements.
PREDICTION, TRAINING = "prediction", "training"
REACHED = {PREDICTION: 0.55, TRAINING: 0.5}


@dataclass(frozen=True)
class Operations:
    """Operations for one piece of a document, all copies included.

    base (float): With the weights of the base, and in its attention.
    adapter (float): With those of the adapter.
    """

    base: float
    adapter: float


@dataclass(frozen=True)
class Speed:
    """Operations per second of this machine.

    base (float): In products as wide as the base, in the dtype of its arithmetic.
    adapter (float): In products as narrow as the adapter, in float32.
    """

    base: float
    adapter: float


def operations_of(shape: BaseShape, settings: BackboneSettings, work: Work) -> dict[str, Operations]:
    """Count the operations of prediction, without a second copy of the weights, and of training."""
    layers = shape.used_layers(settings.base.depth)
    copies = work.repeat + 1
    weights = copies * sum(layer.used for layer in layers)
    attention = copies * 4 * work.row * sum(layer.attended for layer in layers)
    adapter = copies * shape.adapter_parameters(settings.base.depth)
    forward = Operations(2 * weights + attention, 2 * adapter)
    if shape.lora is None:
        return {PREDICTION: forward, TRAINING: forward}
    again = 1 if settings.gradient_checkpointing else 0
    backward = Operations(2 * weights + 2 * attention, 4 * adapter)
    training = Operations((1 + again) * forward.base + backward.base, (1 + again) * forward.adapter + backward.adapter)
    return {PREDICTION: forward, TRAINING: training}


Clock = Callable[[], float]


def measure_speed(
    shape: BaseShape, dtype: str, work: Work, device: torch.device, clock: Clock = time.perf_counter
) -> Speed:
    """Measure the speed of products as this base computes them. It takes about a second.

    clock (Callable): Returns seconds.
    RAISES (SettingError): The device cannot multiply in this dtype.
    """
    width, widest = shape.size.width, max(layer.widest for layer in shape.layers)
    rank = shape.lora.r if shape.lora is not None else 1
    pieces = work.at_once
    try:
        wide = _speed((pieces, width, widest), getattr(torch, dtype), device, clock)
    except RuntimeError as error:
        raise SettingError(f"{device} cannot multiply in {dtype}: {error}. Use another dtype.") from error
    return Speed(wide, _speed((pieces, width, rank), torch.float32, device, clock))


def pieces_per_second(operations: Operations, speed: Speed, what: str) -> float:
    """The estimated number of pieces of documents per second.

    what (str): "prediction" or "training".
    """
    return REACHED[what] / (operations.base / speed.base + operations.adapter / speed.adapter)


def _speed(sizes: tuple[int, int, int], dtype: torch.dtype, device: torch.device, clock: Clock) -> float:
    """Operations per second of a product of a (rows, inner) and an (inner, columns) matrix."""
    rows, inner, columns = sizes
    with torch.inference_mode():
        states = torch.randn((rows, inner), device=device).to(dtype)
        weight = torch.randn((columns, inner), device=device).to(dtype)
        _repeat(states, weight, WARM_UP, clock)
        times, seconds = _repeat(states, weight, SECONDS, clock)
    return times * 2 * rows * inner * columns / seconds


def _repeat(states: torch.Tensor, weight: torch.Tensor, least: float, clock: Clock) -> tuple[int, float]:
    """Multiply for at least a number of seconds, and return how often and for how long."""
    times, begun = 0, clock()
    while True:
        torch.nn.functional.linear(states, weight)
        if states.device.type == "cuda":
            torch.cuda.synchronize(states.device)
        times += 1
        seconds = clock() - begun
        if seconds >= least:
            return times, seconds
