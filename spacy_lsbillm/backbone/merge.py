"""Writing a plain model with an adapter folded in, tensor by tensor: the whole model is never in memory."""

import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .adapter import LINEAR, LoraSettings, read_state
from .base import BaseSettings
from .base_config import DTYPE_SETTING, read_config
from .int8_files import in_eight_bits, mark_int8
from .matching import matched_tensors
from .skeleton import skeleton_for
from .tensor_files import NewTensor, StoredTensor, write_tensors

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# The files that belong to a base beside its weights. The licence must accompany them.
LICENCES = ("LICENSE*", "NOTICE*")
BESIDE = ("generation_config.json", "README.md", *LICENCES)
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_model(
    folder: Path,
    settings: BaseSettings,
    adapter: tuple[Path, LoraSettings] | None,
    target: Path,
    kept: Collection[int] | None = None,
) -> None:
    """Write a base into a new folder, in files of at most 4 GB, reduced to the layers that are used.

    folder (Path), settings (BaseSettings), adapter (tuple | None), kept (Collection[int] | None): See `merged_model`.
    RAISES (BaseError, AdapterError, SettingError): As in `merged_model`.
    """
    merged = merged_model(folder, settings, adapter, kept)
    target.mkdir()
    merged.config.save_pretrained(target)
    if kept is not None:
        mark_int8(target, kept)
    copy_beside(folder, target)
    write_tensors(target, merged.tensors)


def copy_beside(folder: Path, target: Path, patterns: tuple[str, ...] = BESIDE) -> None:
    """Copy the files that belong to a base beside its weights."""
    for pattern in patterns:
        for path in folder.glob(pattern):
            shutil.copyfile(path, target / path.name)


@dataclass(frozen=True)
class Merged:
    """A model that is yet to be written. Its tensors are computed while they are written.

    config (PretrainedConfig): Its config, with the layers that are used and the dtype of the result.
    model (PreTrainedModel): Its `skeleton`.
    tensors (dict): The tensors by the names under which they are written.
    names (dict): Those names, by the model's own, for all weights that are written under a single name.
    """

    config: Any
    model: PreTrainedModel
    tensors: dict[str, NewTensor]
    names: dict[str, str]


def merged_model(
    folder: Path,
    settings: BaseSettings,
    adapter: tuple[Path, LoraSettings] | None,
    kept: Collection[int] | None = None,
) -> Merged:
    """A base reduced to the layers that are used, with an adapter folded in.

    folder (Path): The base.
    settings (BaseSettings): With an adapter, or in eight bits, `dtype` is that of the result. Quantisation is ignored:
        the adapter is added to the base as it is stored.
    adapter (tuple | None): The folder of an adapter to fold in, and its settings.
    kept (Collection[int] | None): If given, weights are written in eight bits (`int8_files`), except those of these
        layers.
    RAISES (BaseError, AdapterError, SettingError): The base or the adapter cannot be read, or the base cannot be
        written in eight bits.
    """
    config = read_config(folder, settings)
    model = skeleton_for(folder, config)
    matched = matched_tensors(folder, model)
    by_name = {**matched.tensors, **matched.joined}
    tensors = {
        matched.written(stored): NewTensor(stored.dtype, stored.shape, stored.chunks) for stored in by_name.values()
    }
    if adapter is not None or kept is not None:
        updates = {} if adapter is None else _updates(*adapter)
        weights = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, LINEAR)}
        for name, stored in by_name.items():
            dtype = DTYPES[stored.dtype] if settings.dtype == "auto" else getattr(torch, settings.dtype)
            update = updates.get(name.removesuffix(".weight")) if name in weights else None
            transposed = update is not None and not isinstance(weights[name], nn.Linear)
            tensors[matched.written(stored)] = _changed(stored, dtype, update, transposed)
        if settings.dtype != "auto":
            setattr(config, DTYPE_SETTING, getattr(torch, settings.dtype))
    if kept is not None:
        names = {matched.written(stored): name for name, stored in by_name.items()}
        tensors = in_eight_bits(tensors, model, names, kept)
    return Merged(config, model, tensors, {name: matched.written(stored) for name, stored in matched.tensors.items()})


class _Update:
    """The update of an adapter to one weight (LoRA: arXiv 2106.09685; DoRA: arXiv 2402.09353, section 4.1).

    down (Tensor), up (Tensor): Shapes (r, in) and (out, r).
    scale (float): Factor of their product.
    magnitude (Tensor | None): With DoRA, the length of each row of the result, shape (out,).
    """

    def __init__(self, down: Tensor, up: Tensor, scale: float, magnitude: Tensor | None):
        self._down, self._up, self._scale, self._magnitude = down, up, scale, magnitude

    def __call__(self, weight: Tensor) -> Tensor:
        """Add the update to a weight.

        weight (Tensor): float32, shape (out, in). It is changed in place.
        """
        weight.addmm_(self._up.float(), self._down.float(), alpha=self._scale)
        if self._magnitude is not None:
            weight *= (self._magnitude.float() / weight.norm(dim=1))[:, None]
        return weight


def _updates(folder: Path, lora: LoraSettings) -> dict[str, _Update]:
    """The updates by name of the module that they change."""
    state = read_state(folder)
    scale = lora.alpha / (lora.r**0.5 if lora.use_rslora else lora.r)
    end = ".lora_A.weight"
    updates = {}
    for key in state:
        if key.endswith(end):
            full = key.removesuffix(end)
            updates[full.removeprefix("base_model.model.")] = _Update(
                state[key], state[f"{full}.lora_B.weight"], scale, state.get(f"{full}.lora_magnitude_vector")
            )
    return updates


def _changed(stored: StoredTensor, dtype: torch.dtype, update: _Update | None, transposed: bool) -> NewTensor:
    source = DTYPES[stored.dtype]

    def converted() -> Iterator[bytes]:
        for chunk in stored.chunks():
            yield _bytes(torch.frombuffer(bytearray(chunk), dtype=source).to(dtype))

    def folded() -> Iterator[bytes]:
        whole = bytearray().join(stored.chunks())
        weight = torch.frombuffer(whole, dtype=source).reshape(stored.shape).to(torch.float32)
        assert update is not None
        yield _bytes(update(weight.T).T.to(dtype) if transposed else update(weight).to(dtype))

    chunks: Callable[[], Iterator[bytes]] = converted if update is None else folded
    return NewTensor(NAMES[dtype], stored.shape, chunks)


def encoded(values: Tensor) -> NewTensor:
    """Turn a tensor in memory into one that can be written."""
    return NewTensor(NAMES[values.dtype], tuple(values.shape), lambda: [_bytes(values)])


def _bytes(values: Tensor) -> bytes:
    # numpy has no bfloat16.
    return values.contiguous().view(torch.uint8).numpy().tobytes()
