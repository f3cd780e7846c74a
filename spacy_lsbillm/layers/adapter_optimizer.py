"""Optimizer states of the adapter that take less memory than thinc's: 8-bit, or paged to the host."""

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from thinc.api import Optimizer
from torch import Tensor, nn

from ..errors import SettingError
from .optimizer_step import clip_each

# By their names in transformers' `Trainer`; null is thinc's own optimizer, with float32 states on the device.
CLASSES = {
    "adamw_8bit": "AdamW8bit",
    "paged_adamw_32bit": "PagedAdamW32bit",
    "paged_adamw_8bit": "PagedAdamW8bit",
}
CHOICES = (None, *CLASSES)


class AdapterOptimizer:
    """AdamW of bitsandbytes (arXiv 2110.02861), with the rates and settings of a thinc optimizer.

    Its states take less memory on the GPU than thinc's.

    name (str): One of `CLASSES`.
    parameters (Mapping): The parameters to optimise, by name.
    scale (float): Factor of the optimizer's learning rate.
    RAISES (SettingError): It is unavailable here: bitsandbytes does not work, or paging has no GPU.
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
        """The optimizer's moments and step counts, by the number of the parameter and the name of the value.

        RETURNS (tuple): Tensors, and plain values.
        """
        tensors: dict[str, Tensor] = {}
        facts: dict[str, Any] = {}
        for number, parameter in enumerate(self._parameters):
            for name, value in self._optimizer.state[parameter].items():
                (tensors if isinstance(value, Tensor) else facts)[f"{number}/{name}"] = value
        return tensors, facts

    def load_state(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Restore the moments and step counts that `state` returned."""
        for place, value in (dict(tensors) | dict(facts)).items():
            number, _, name = place.partition("/")
            parameter = self._parameters[int(number)]
            # The library's load_state_dict would change dtypes.
            own = value.to(parameter.device) if isinstance(value, Tensor) else value
            self._optimizer.state[parameter][name] = own

    def step(self, settings: Optimizer) -> None:
        """Update the parameters from their gradients, as a thinc optimizer would at its current rate.

        Each gradient is clipped separately, and weight decay is decoupled.

        RAISES (SettingError): The optimizer uses averages or L2 regularisation, which this one does not support.
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
