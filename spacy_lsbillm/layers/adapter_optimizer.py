"""Optimizer states of the adapter that take less memory than thinc's: 8-bit, or paged to the host."""

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from thinc.api import Optimizer
from torch import Tensor, nn

from ..errors import SettingError
from .optimizer_step import clip_each

# By the names that transformers' `Trainer` has for them; null is thinc's own, in float32 on the device.
CLASSES = {
    "adamw_8bit": "AdamW8bit",
    "paged_adamw_32bit": "PagedAdamW32bit",
    "paged_adamw_8bit": "PagedAdamW8bit",
}
CHOICES = (None, *CLASSES)


class AdapterOptimizer:
    """AdamW of bitsandbytes (arXiv 2110.02861), with the rates and settings of a thinc optimizer.

    name (str): One of `CLASSES`.
    parameters (Mapping): What it changes, by name.
    scale (float): Of the learning rate.
    RAISES (SettingError): It cannot be had here.
    """

    def __init__(self, name: str, parameters: Mapping[str, nn.Parameter], scale: float):
        devices = {parameter.device.type for parameter in parameters.values()}
        if name.startswith("paged") and devices != {"cuda"}:
            raise SettingError(f'adapter_optimizer = "{name}" needs a GPU to page from. Use "adamw_8bit" or null.')
        try:
            optimizers = importlib.import_module("bitsandbytes").optim
        except (ImportError, RuntimeError, OSError) as error:
            raise SettingError(f'adapter_optimizer = "{name}" needs a working bitsandbytes: {error}') from error
        self._scale = scale
        self._parameters = list(parameters.values())
        self._optimizer: Any = getattr(optimizers, CLASSES[name])(self._parameters)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Moments and counts, by the parameter's number and their name: tensors, and plain values."""
        tensors: dict[str, Tensor] = {}
        facts: dict[str, Any] = {}
        for number, parameter in enumerate(self._parameters):
            for name, value in self._optimizer.state[parameter].items():
                (tensors if isinstance(value, Tensor) else facts)[f"{number}/{name}"] = value
        return tensors, facts

    def load_state(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take what `state` gave."""
        for place, value in (dict(tensors) | dict(facts)).items():
            number, _, name = place.partition("/")
            parameter = self._parameters[int(number)]
            # Not by the library's load_state_dict, which changes dtypes.
            own = value.to(parameter.device) if isinstance(value, Tensor) else value
            self._optimizer.state[parameter][name] = own

    def step(self, settings: Optimizer) -> None:
        """Change the parameters by their gradients, as a thinc optimizer would at its present rate: gradients clipped
        one by one, weight decay apart from them.

        RAISES (SettingError): The optimizer asks for what this one has not.
        """
        if settings.averages is not None:
            raise SettingError(
                "adapter_optimizer keeps no averages, which would take the memory that it saves. "
                "Set training.optimizer.use_averages = false."
            )
        if settings.L2 and not settings.L2_is_weight_decay:
            raise SettingError("adapter_optimizer needs training.optimizer.L2_is_weight_decay = true.")
        if settings.grad_clip:
            clip_each([one.grad for one in self._parameters if one.grad is not None], settings.grad_clip)
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learn_rate * self._scale
            group["betas"] = (settings.b1, settings.b2)
            group["eps"] = settings.eps
            group["weight_decay"] = settings.L2
        with torch.no_grad():
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
