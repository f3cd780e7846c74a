"""An eight-bit model as a Hugging Face folder.

The weights of the linear layers in the decoder's layers, and of the embedding, are int8. Beside each, the tensor with
its name and "_scale" holds the scale of each output. All other tensors are in float32; there is no language-model head.
`quantization_config` in config.json marks the folder, so that nothing reads the weights as ordinary ones.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..errors import BaseError, SettingError
from .config_file import read_json
from .families import find_layers
from .int8 import Int8Embedding, Int8Linear, NoHead, check_kernel, quantised
from .tensor_files import NewTensor

QUANTIZATION_CONFIG, METHOD = "quantization_config", "spacy_lsbillm.int8"
KEPT = "layers_in_float32"
SCALE = "_scale"
WEIGHT = ".weight"
STORED = "I8"
FACTOR = "embed_scale"


def is_int8(folder: Path) -> bool:
    """Whether a folder holds an eight-bit model."""
    said = read_json(folder).get(QUANTIZATION_CONFIG)
    return isinstance(said, dict) and said.get("quant_method") == METHOD


def mark_int8(folder: Path, kept: Collection[int]) -> None:
    """Mark a folder as an eight-bit model in its config.json, with the layers that are in float32."""
    path = folder / "config.json"
    said = {
        **json.loads(path.read_text(encoding="utf8")),
        QUANTIZATION_CONFIG: {"quant_method": METHOD, KEPT: sorted(kept)},
    }
    path.write_text(json.dumps(said, indent=2) + "\n", encoding="utf8")


def check_kept(kept: Collection[int], layers: int) -> None:
    """Check the numbers of layers that stay in float32.

    RAISES (SettingError): The base does not have such a layer.
    """
    wrong = sorted(layer for layer in kept if not 0 <= layer < layers)
    if wrong:
        raise SettingError(f"layer {wrong[0]} cannot be kept in float32: the base has layers 0 to {layers - 1}.")


def linear_layers(model: PreTrainedModel) -> dict[str, tuple[int, nn.Module]]:
    """The linear modules in a decoder's layers, by name, each with the number of its layer.

    RAISES (BaseError): The model is a mixture of experts.
    """
    prefix = ".".join(find_layers(model)) + "."
    layers = {}
    for name, module in model.named_modules():
        if name.endswith(".experts"):
            raise BaseError(
                f"a mixture of experts (model_type {model.config.model_type!r}) cannot be stored in eight bits: "
                f"versions of transformers keep experts in different forms. Leave it as it is, or use another base."
            )
        if isinstance(module, (nn.Linear, Conv1D)) and name.startswith(prefix):
            layers[name] = (int(name.removeprefix(prefix).partition(".")[0]), module)
    return layers


def head_tensors(model: PreTrainedModel) -> set[str]:
    """The names of the tensors of the language-model head."""
    head = model.get_output_embeddings()
    return {f"{_name_of(head, model)}.{key}" for key in head.state_dict()}


def in_eight_bits(
    tensors: Mapping[str, NewTensor], model: PreTrainedModel, names: Mapping[str, str], kept: Collection[int]
) -> dict[str, NewTensor]:
    """Convert a model's tensors to the eight-bit form. They are rounded while they are written.

    tensors (Mapping): In float32, by the names under which they are written.
    model (PreTrainedModel): Its `skeleton`.
    names (Mapping): The model's names for these.
    kept (Collection[int]): Layers that stay in float32.
    RAISES (BaseError, SettingError): It is a mixture of experts, or does not have these layers.
    """
    check_kept(kept, model.config.num_hidden_layers)
    linear = linear_layers(model)
    chosen = {f"{name}{WEIGHT}": isinstance(module, Conv1D) for name, (i, module) in linear.items() if i not in kept}
    embedding = model.get_input_embeddings()
    # Other kinds are unknown; some families have an embedding with a factor.
    if type(embedding) is nn.Embedding or hasattr(embedding, FACTOR):
        chosen[f"{_name_of(embedding, model)}{WEIGHT}"] = False
    heads = head_tensors(model)
    written: dict[str, NewTensor] = {}
    for name, tensor in tensors.items():
        target = names[name]
        if target in chosen:
            written |= _EightBits(tensor, chosen[target]).tensors(name)
        elif target not in heads:
            written[name] = tensor
    return written


def _name_of(module: nn.Module, model: PreTrainedModel) -> str:
    return next(name for name, one in model.named_modules() if one is module)


class _EightBits:
    """A weight that is read, rounded and written in one go.

    tensor (NewTensor): In float32.
    transposed (bool): Whether its shape is (in, out).
    """

    def __init__(self, tensor: NewTensor, transposed: bool):
        self._tensor, self._transposed = tensor, transposed
        self._scale: Tensor | None = None

    def tensors(self, name: str) -> dict[str, NewTensor]:
        shape = self._tensor.shape
        outputs = shape[1 if self._transposed else 0]
        return {
            name: NewTensor(STORED, shape, self._weight),
            f"{name}{SCALE}": NewTensor("F32", (outputs,), self._scales),
        }

    def _weight(self) -> Iterator[bytes]:
        whole = bytearray().join(self._tensor.chunks())
        weight = torch.frombuffer(whole, dtype=torch.float32).reshape(self._tensor.shape)
        numbers, self._scale = quantised(weight.T if self._transposed else weight)
        yield (numbers.T if self._transposed else numbers).contiguous().numpy().tobytes()

    def _scales(self) -> Iterator[bytes]:
        # The weight is written before its scales.
        assert self._scale is not None
        yield self._scale.numpy().tobytes()


def fill_int8(model: PreTrainedModel, values: Mapping[str, Tensor], scales: Mapping[str, Tensor]) -> None:
    """Fill a model whose weights are not set with stored tensors.

    values (Mapping): Tensors by the model's names.
    scales (Mapping): The scales of int8 tensors, by the same names.
    RAISES (BaseError): This build of torch has no kernel for it, or a weight belongs to a layer that cannot be int8.
    """
    check_kernel()
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for name, value in values.items():
            if name not in scales:
                own[name].copy_(value)
                continue
            path = name.removesuffix(WEIGHT)
            module = model.get_submodule(path)
            double: nn.Module
            if isinstance(module, nn.Embedding):
                double = Int8Embedding(value.clone(), scales[name].clone(), float(getattr(module, FACTOR, 1.0)))
            else:
                weight = (value.T if isinstance(module, Conv1D) else value).contiguous()
                bias: Any = values.get(f"{path}.bias")
                double = Int8Linear(
                    weight, scales[name].clone(), None if bias is None else bias.to(torch.float32).clone()
                )
            model.set_submodule(path, double)
    model.set_output_embeddings(NoHead(model.get_output_embeddings().in_features))
