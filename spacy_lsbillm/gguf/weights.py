"""The weights of a GGUF file in the form of a transformers model, one tensor at a time.

Names and the order of rows come from transformers' own tables.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

from ..backbone.matching import tied_weights
from ..backbone.tensor_files import NewTensor
from ..errors import BaseError
from .config import ROPE_FACTORS
from .file import BLOCK, GGUFFile

# Safetensors' names of dtypes.
NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
SHOWN = 5
EXPERT = re.compile(r"\.experts\.\d+\.")
# Tensors whose content the config already states.
IN_CONFIG = {ROPE_FACTORS}


def new_tensors(file: GGUFFile, model: PreTrainedModel, entries: Mapping[str, Any], dtype: str) -> dict[str, NewTensor]:
    """The tensors to write, by their names in the model.

    Only the checks read them; if they are written in this order, each is unpacked once.

    model (PreTrainedModel): The `skeleton` of the file's config.
    entries (Mapping): The config's entries, from `make_config`.
    dtype (str): "float32", "float16" or "bfloat16".
    RAISES (BaseError): The model does not use a tensor of the file, the file lacks one of the model or has it in
        another size, or the numbers cannot be unpacked.
    """
    check_quantizations(file)
    unpacked = _Unpacked(file, model, entries)
    needed = {name: tensor for name, tensor in model.state_dict().items() if name not in tied_weights(model)}
    groups: dict[str, list[str]] = {}
    for name in needed:
        groups.setdefault(unpacked.group(name), []).append(name)
    _check_names(file, unpacked.sources, groups)
    for group, names in groups.items():
        held = sum(prod(file.tensors[source].shape) for source in unpacked.sources[group])
        wanted = sum(needed[name].numel() for name in names)
        if held != wanted:
            raise BaseError(
                f"{file.name}: {', '.join(unpacked.sources[group])} has {held:,} numbers, but the model's {names[0]} "
                f"needs {wanted:,}: the file's weights do not fit the shape of the model that it states. Fetch it "
                f"again, or the original in Hugging Face's format."
            )
    return {
        name: _tensor(unpacked, name, tuple(needed[name].shape), dtype) for names in groups.values() for name in names
    }


def check_quantizations(file: GGUFFile) -> None:
    """Check that all numbers of a file can be unpacked.

    RAISES (BaseError): Some cannot.
    """
    for name, tensor in {tensor.type: (name, tensor) for name, tensor in file.tensors.items()}.values():
        try:
            tensor.check_type()
        except NotImplementedError as error:
            raise BaseError(
                f"{file.name}: {name} is packed as {tensor.type.name}, which the package gguf does not unpack. Fetch "
                f"the model in another quantisation, such as Q8_0 or Q4_K_M."
            ) from error


def _check_names(file: GGUFFile, sources: Mapping[str, list[str]], groups: Mapping[str, list[str]]) -> None:
    missing = [group for group in groups if group not in sources]
    if missing:
        raise BaseError(
            f"{file.name} lacks weights that a model of its architecture ({file.architecture}) has: {_some(missing)}. "
            f"Fetch it again, or the original in Hugging Face's format."
        )
    used = {source for group in groups for source in sources[group]}
    unused = [name for name in file.tensors if name not in used | IN_CONFIG]
    if unused:
        raise BaseError(
            f"{file.name} has weights that transformers' model of its architecture ({file.architecture}) does not "
            f"have: {_some(unused)}. Without them it would be a different model. Fetch the original in Hugging Face's "
            f"format."
        )


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


class _Unpacked:
    """Unpacked groups of tensors of the file. The last one is kept, as several tensors of the model may come from it.

    sources (dict[str, list[str]]): The file's tensors of each group, usually one for one of the model.
    """

    def __init__(self, file: GGUFFile, model: PreTrainedModel, entries: Mapping[str, Any]):
        self.file = file
        self._processor = TENSOR_PROCESSORS.get(file.architecture, TensorProcessor)(config=entries)
        # In transformers 5 it needs the processor.
        more = {"processor": self._processor} if _takes(get_gguf_hf_weights_map, "processor") else {}
        self._names: dict[str, str] = get_gguf_hf_weights_map(model, **more)
        self.sources: dict[str, list[str]] = {}
        for source in file.tensors:
            group = self._names.get(source) or self._names.get(source.removesuffix(".weight"))
            if group is not None:
                self.sources.setdefault(group, []).append(source)
        self._last: tuple[str, dict[str, Any]] = ("", {})

    def group(self, name: str) -> str:
        """The group of a tensor of the model. The experts of a layer are one tensor in the file."""
        return name if name in self.sources else EXPERT.sub(".experts.", name)

    def blocks(self, name: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
        """The numbers of a tensor of the model in float32, in parts of shape (numbers,).

        RAISES (BaseError): It has another shape.
        """
        group = self.group(name)
        source = self.sources[group][0]
        if len(self.sources[group]) == 1 and group == name and self._as_stored(source):
            self._check_shape(name, self.file.tensors[source].shape, shape)
            yield from map(torch.from_numpy, self.file.tensors[source].blocks())
            return
        if self._last[0] != group:
            # Free the previous group first.
            self._last = ("", {})
            self._last = (group, self._unpack(group))
        block = self._last[1].get(name)
        if block is None:
            raise BaseError(f"{self.file.name}: transformers makes no {name} of {', '.join(self.sources[group])}.")
        self._check_shape(name, tuple(block.shape), shape)
        yield from torch.as_tensor(np.ascontiguousarray(block)).reshape(-1).split(BLOCK)

    def _as_stored(self, source: str) -> bool:
        """Whether a processor leaves a tensor unchanged. It is called with an array that takes no memory."""
        shown = np.broadcast_to(np.float32(0), self.file.tensors[source].shape)
        result = self._processor.process(
            weights=shown, name=source, tensor_key_mapping=self._names, parsed_parameters={"tensors": {}}
        )
        return result.weights is shown and result.name == source

    def _check_shape(self, name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        if found != wanted:
            raise BaseError(
                f"{self.file.name} has {name} in the shape {found}, but its config needs {wanted}. Fetch it again, or "
                f"the original in Hugging Face's format."
            )

    def _unpack(self, group: str) -> dict[str, Any]:
        # A processor returns the weights, or stores them there.
        parsed: dict[str, dict[str, Any]] = {"tensors": {}}
        for source in self.sources[group]:
            result = self._processor.process(
                weights=self.file.tensors[source].values(),
                name=source,
                tensor_key_mapping=self._names,
                parsed_parameters=parsed,
            )
            if result.name in self._names:
                parsed["tensors"][self._names[result.name]] = result.weights
        return parsed["tensors"]


def _takes(function: Any, name: str) -> bool:
    return name in inspect.signature(function).parameters


def _tensor(unpacked: _Unpacked, name: str, shape: tuple[int, ...], dtype: str) -> NewTensor:
    target = getattr(torch, dtype)

    def chunks() -> Iterator[bytes]:
        for block in unpacked.blocks(name, shape):
            converted = block.to(target)
            if not converted.isfinite().all():
                raise BaseError(
                    f"{unpacked.file.name}: {name} holds {block.abs().max():.3g}, which is not a number of {dtype}. "
                    f"Import with --dtype float32 or bfloat16; if that fails, too, fetch the file again."
                )
            # numpy has no bfloat16.
            yield converted.view(torch.uint8).numpy().tobytes()

    return NewTensor(NAMES[dtype], shape, chunks)
