"""Folding the adapter into a second copy of the weights that it changes, for faster prediction.

peft computes an adapter's update as small products beside each linear layer. Once folded in, it costs nothing. The
base's tensors are never written, as other pipelines may share them: only the layers that the adapter changes get their
own weights, everything else is shared with the backbone.
"""

import contextlib
import copy
import importlib
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SettingError
from ..values import check_choice
from .adapter import is_adapted
from .families import decoder_of
from .finite import check_adapter
from .free_memory import free_memory
from .model import Backbone

AUTO, ALWAYS, NEVER = "auto", "always", "never"
FOLD = (AUTO, ALWAYS, NEVER)
# With "auto", a second copy may take at most this fraction of the free memory.
LARGEST_SHARE = 0.5
# Attributes that differ between a module and its double.
OWN = {"_modules", "training"}


def check_fold(setting: object, quantization: str | None) -> None:
    """Check the setting `fold_adapter`.

    RAISES (SettingError): It is not an allowed value, or not allowed with this quantisation.
    """
    check_choice("fold_adapter", setting, FOLD)
    if setting == ALWAYS and quantization is not None:
        raise SettingError(
            f'fold_adapter = "always" is not allowed with quantization = {quantization!r}: the sum of base and adapter '
            f'would be rounded to that. Use "auto" or "never", or save with store_base = "merged" and load that.'
        )


def may_fold(backbone: Backbone, setting: str) -> bool:
    """Whether to fold the adapter of a backbone, if there is one.

    With "auto": if the base is neither quantised nor shared with another pipeline, and there is `room_to_fold`.
    """
    if not backbone.adapted or setting == NEVER:
        return False
    # The adapter is switched off at present, to look at the base alone.
    if any(layer.disable_adapters for layer in backbone.adapted_layers):
        return False
    return setting == ALWAYS or (backbone.base.quantization is None and backbone.alone)


def room_to_fold(backbone: Backbone, setting: str) -> bool:
    """Whether there is memory for the second copy. With "auto": if it takes at most half of the free memory."""
    if setting == ALWAYS:
        return True
    free = free_memory(backbone.device)
    return free is None or _copy_bytes(backbone) <= free * LARGEST_SHARE


class Folded:
    """A backbone for prediction with the adapter folded into its weights. Valid only while `fits` returns True.

    backbone (Backbone): The double with folded weights.
    """

    def __init__(self, source: Backbone):
        self._source = source
        self._adapter = _adapter_values(source)
        check_adapter(self._adapter)
        self._doubles: dict[nn.Module, nn.Module] = {}
        if source.mix is not None:
            _install_capturing_hooks(decoder_of(source.causal_lm, source.family))
        with torch.no_grad():
            double: Any = self._double(source.causal_lm)
        self.backbone = replace(source, model=double)

    def fits(self, source: Backbone) -> bool:
        """Whether it still computes what the source does.

        If so, the adapter has the same values, and no module was changed, for example by another mask or by moving the
        weights.
        """
        return (
            source is self._source
            and torch.equal(_adapter_values(source), self._adapter)
            and all(_same(module, double) for module, double in self._doubles.items())
        )

    def _double(self, module: nn.Module) -> nn.Module:
        """A module that shares all tensors and hooks with the given one, except those that the adapter changes."""
        if is_adapted(module):
            return merged_linear(module)
        if module in self._doubles:
            return self._doubles[module]
        double = module.__class__.__new__(module.__class__)
        self._doubles[module] = double
        double.__dict__.update(vars(module))
        double.__dict__["_modules"] = {
            name: None if child is None else self._double(child) for name, child in module._modules.items()
        }
        double.training = False
        # peft leaves its config on the model, which marks it as adapted.
        double.__dict__.pop("peft_config", None)
        return double


def _install_capturing_hooks(decoder: nn.Module) -> None:
    """Install the hooks with which transformers 5 collects the layers' states.

    Each tree of modules installs them when it first runs: where two trees share modules, they would be installed twice.
    Here they are installed before.
    """
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module("transformers.utils.output_capturing").maybe_install_capturing_hooks(decoder)


def _same(module: nn.Module, double: nn.Module) -> bool:
    theirs = vars(double)
    return all(
        name in OWN or name == "peft_config" or theirs.get(name, OWN) is value for name, value in vars(module).items()
    )


def merged_linear(layer: Any) -> nn.Module:
    """The linear layer inside one of peft's layers with the adapter added to its weight.

    The sum is computed in float32 and rounded once.
    """
    weight = layer.get_base_layer().weight
    # The adapter, which is in float32, is only read. To copy its modules would take most of the time.
    alone = copy.deepcopy(layer, {id(part): part for part in layer.children() if part is not layer.base_layer})
    alone.get_base_layer().float()
    alone.merge()
    return alone.get_base_layer().to(weight.dtype).requires_grad_(False).eval()


def _adapter_values(backbone: Backbone) -> Tensor:
    """All values of the adapter in one row."""
    values = [value.detach().flatten() for value in backbone.adapter_parameters().values()]
    return torch.cat(values)


def _copy_bytes(backbone: Backbone) -> int:
    weights = [layer.get_base_layer().weight for layer in backbone.adapted_layers]
    return sum(weight.numel() * weight.element_size() for weight in weights)
