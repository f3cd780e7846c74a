"""How much rounding to eight bits changes each layer's products."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .adapter import is_adapted
from .fold import merged_linear
from .int8 import Int8Linear, quantised
from .int8_files import linear_layers
from .model import Backbone

# The number of pieces per text that are compared.
LONGEST = 256


@dataclass(frozen=True)
class LayerError:
    """What eight bits change in a layer, given the states of the float32 model.

    layer (int): Its number.
    error (float): The largest relative error of its linear modules: norm of the difference over norm of the output.
    module (str): The name of that module in the layer.
    nbytes (int): The additional memory for keeping the layer in float32, in bytes.
    """

    layer: int
    error: float
    module: str
    nbytes: int


def layer_errors(backbone: Backbone, texts: Sequence[str]) -> list[LayerError]:
    """Measure the rounding error of each layer, to choose layers that stay in float32.

    backbone (Backbone): A float32 backbone, with or without an adapter.
    RETURNS (list[LayerError]): One per layer, from the input on.
    """
    sums: dict[str, list[float]] = {}
    hooks = []
    modules = {name: (layer, module) for name, (layer, module) in _modules(backbone).items()}
    for name, (_, module) in modules.items():
        hooks.append(module.register_forward_hook(_Compared(_rounded(module), sums.setdefault(name, [0.0, 0.0]))))
    backbone.set_training(False)
    try:
        with torch.inference_mode():
            for text in texts:
                ids = backbone.tokenizer(text, truncation=True, max_length=LONGEST, return_tensors="pt")["input_ids"]
                if ids.numel():
                    backbone.states(ids, torch.ones_like(ids))
    finally:
        for hook in hooks:
            hook.remove()
    result = []
    for number in range(backbone.config.num_hidden_layers):
        own = {name: module for name, (layer, module) in modules.items() if layer == number}
        errors = {name: (sums[name][0] / max(sums[name][1], 1e-30)) ** 0.5 for name in own}
        worst = max(errors, key=errors.__getitem__)
        # int8 takes a quarter of the bytes, and one scale per row.
        saved = sum(_weight(module).nbytes * 3 // 4 for module in own.values())
        result.append(LayerError(number, errors[worst], worst.partition(f".{number}.")[2], saved))
    return result


def _modules(backbone: Backbone) -> dict[str, tuple[int, nn.Module]]:
    """Linear modules and peft's modules around them, but not the modules inside of the latter."""
    model: Any = backbone.causal_lm
    wrapped = {name: module for name, module in model.named_modules() if is_adapted(module)}
    modules: dict[str, tuple[int, nn.Module]] = {}
    for name, (layer, module) in linear_layers(model).items():
        around = next((outer for outer in wrapped if name.startswith(f"{outer}.")), None)
        modules[around or name] = (layer, module if around is None else wrapped[around])
    return modules


def _weight(module: Any) -> Tensor:
    weight: Tensor = (module.get_base_layer() if is_adapted(module) else module).weight
    return weight


def _rounded(module: nn.Module) -> Int8Linear:
    plain: Any = merged_linear(module) if is_adapted(module) else module
    weight = plain.weight.T if isinstance(plain, Conv1D) else plain.weight
    return Int8Linear(*quantised(weight.detach().float().contiguous()), plain.bias)


class _Compared:
    """A hook that sums the squares of a rounded module's error, and those of the right output."""

    def __init__(self, rounded: Int8Linear, sums: list[float]):
        self._rounded, self._sums = rounded, sums

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._sums[0] += float((self._rounded(inputs[0]) - output).square().sum())
        self._sums[1] += float(output.square().sum())
