"""Sharing one copy of a base's weights in a process, however many pipelines use it.

Each pipeline has its own tree of modules, so that its hooks, adapter and training mode do not affect others; the frozen
tensors in the trees are the same memory, and are never written to.
"""

import copy
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from transformers import PreTrainedModel

from .base import BaseSettings
from .base_config import cut_config
from .families import Family, decoder_of, layers_of
from .mapped_files import WatchedFiles
from .merge import DTYPES
from .tensor_files import stored_tensors, weight_files
from .weights import load_causal_lm


@dataclass(frozen=True)
class _Held:
    """What decides whether two pipelines can share weights."""

    folder: Path
    fingerprint: str
    dtype: str
    auto_dtype: str | None
    quantization: str | None
    attention: str
    device: torch.device


class SharedBase:
    """A base in memory, which is never run itself. It lives as long as a pipeline uses it.

    model (PreTrainedModel): The causal LM as it was loaded.
    files (WatchedFiles | None): The files that its weights are mapped from.
    """

    def __init__(self, model: PreTrainedModel, files: WatchedFiles | None = None):
        self._model = model
        self._files = files or WatchedFiles()
        self._trees: WeakSet[PreTrainedModel] = WeakSet()

    @property
    def users(self) -> int:
        """How many trees of modules over it are in use."""
        return len(self._trees)

    @property
    def layers(self) -> int:
        """How many layers of the base it has."""
        return int(self._model.config.num_hidden_layers)

    @property
    def intact(self) -> bool:
        """Whether its weight files are unchanged."""
        return self._files.changed() is None

    def check_files(self) -> None:
        """Check that the weight files are unchanged.

        RAISES (BaseError): One that the weights are mapped from was written to.
        """
        self._files.check()

    def tree(self, layers: int, family: Family) -> PreTrainedModel:
        """Create a causal LM over the same weights, with only its first layers.

        layers (int): The number of layers.
        """
        model = over_the_same_weights(self._model)
        if layers < self.layers:
            decoder = decoder_of(model, family)
            cut_config(model.config, layers)
            place, _, last = family.layers.rpartition(".")
            setattr(decoder.get_submodule(place), last, nn.ModuleList(layers_of(decoder, family)[:layers]))
        self._trees.add(model)
        return model

    def adopt(self, other: "SharedBase") -> None:
        """Use another base's tensors wherever both have the same."""
        for path, module in other._model.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                self._model.get_submodule(path)._parameters[name] = parameter


_lock = threading.RLock()
_live: dict[_Held, "WeakSet[SharedBase]"] = {}


def shared_base(
    folder: Path, fingerprint: str, settings: BaseSettings, empty: PreTrainedModel, device: torch.device
) -> SharedBase:
    """The base in memory. It is loaded if no pipeline uses it, or none with that many layers.

    folder (Path), fingerprint (str): Where it is, and what identifies it.
    empty (PreTrainedModel): Its `skeleton`, with the layers that are needed.
    RAISES (BaseError): It cannot be loaded.
    """
    held = _Held(
        folder,
        fingerprint,
        settings.dtype,
        settings.auto_dtype,
        settings.quantization,
        settings.attention,
        device,
    )
    layers = empty.config.num_hidden_layers
    with _lock:
        bases = _live.setdefault(held, WeakSet())
        largest = max((base for base in bases if base.intact), key=lambda base: base.layers, default=None)
        if largest is not None and largest.layers >= layers:
            return largest
        # Loading draws random numbers, sharing does not; what follows must not depend on which of the two happened.
        with torch.random.fork_rng(devices=[]):
            # Watched before they are read, so that no write in between is missed.
            files = WatchedFiles(weight_files(folder))
            model = load_causal_lm(folder, settings, device, empty)
            loaded = SharedBase(model, files if _is_mapped(folder, model, settings, device) else None)
        if largest is not None:
            loaded.adopt(largest)
        bases.add(loaded)
        return loaded


def _is_mapped(folder: Path, model: PreTrainedModel, settings: BaseSettings, device: torch.device) -> bool:
    """Whether weights stay memory-mapped: on a CPU, in the dtype in which they are stored."""
    stored = {DTYPES.get(tensor.dtype) for tensor in stored_tensors(folder).values()}
    return device.type == "cpu" and not settings.quantization and model.dtype in stored


def over_the_same_weights(model: Any) -> Any:
    """Copy a model's modules so that everything frozen is the same memory. Trained parameters are copied.

    model (Module): With or without an adapter, quantised or not.
    """
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            memo[id(parameter)] = _alias(parameter, memo)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer
    for module in model.modules():
        # bitsandbytes moves the tensors of an 8-bit weight here at its first use.
        state = getattr(module, "state", None)
        if hasattr(state, "SCB"):
            memo |= {id(tensor): tensor for tensor in vars(state).values() if isinstance(tensor, torch.Tensor)}
    copied = copy.deepcopy(model, memo)
    for module in copied.modules():
        weight = module._parameters.get("weight")
        if getattr(weight, "module", None) is not None:
            # A 4-bit weight refers to its module.
            weight.module = module
    return copied


def _alias(parameter: Any, memo: dict[int, Any]) -> nn.Parameter:
    """Another parameter over the same memory: operations such as moving it do not affect the first."""
    if type(parameter) is nn.Parameter:
        return nn.Parameter(parameter.data, requires_grad=False)
    if hasattr(parameter, "quant_state"):
        alias = copy.copy(parameter)
        alias.quant_state = copy.copy(parameter.quant_state)
        memo[id(parameter.quant_state)] = alias.quant_state
        return alias
    return type(parameter)(
        parameter.data,
        requires_grad=False,
        has_fp16_weights=parameter.has_fp16_weights,
        CB=parameter.CB,
        SCB=parameter.SCB,
    )
