"""Loading the weights of a base."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, PreTrainedModel

from ..errors import BaseError
from .adapter_files import holds_adapter
from .base import BaseSettings
from .base_config import DTYPE_SETTING, read_config
from .int8_files import SCALE, STORED, fill_int8, is_int8
from .matching import RENAMES_FREELY, matched_tensors, other_names, tied_weights
from .quiet import quiet
from .skeleton import making_modules, skeleton_for, uninitialised
from .tensor_files import StoredTensor, stored_tensors

# The process whose threads torch's pool has.
_PROCESS = os.getpid()


# The attribute of bitsandbytes' 4-bit layers that says whether the CPU has a kernel for prediction.
PACKED_FOR_CPU = "support_avx512bf16_for_cpu"


def weights_of(folder: Path, model: PreTrainedModel) -> dict[str, Any]:
    """Arguments that make `from_pretrained` load the right weights of a folder, which may also hold another model's.

    model (PreTrainedModel): Its `skeleton`.
    RETURNS (dict): Without "state_dict", `from_pretrained` reads the folder itself; with it, it must not see the
        folder.
    """
    stored = stored_tensors(folder)
    mapping = other_names(stored, model)
    if mapping is not None and not RENAMES_FREELY:
        # transformers 4 adds or removes a prefix of all names, decided by the names before they are renamed.
        return {"state_dict": _read(matched_tensors(folder, model).tensors)}
    if holds_adapter(folder):
        return {"key_mapping": mapping, "state_dict": _read(stored)}
    return {"key_mapping": mapping}


def _read(tensors: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """The values of tensors, memory-mapped."""
    values: dict[str, Tensor] = {}
    for path in sorted({tensor.path for tensor in tensors.values()}):
        with safe_open(path, framework="pt") as file:
            values |= {name: file.get_tensor(one.name) for name, one in tensors.items() if one.path == path}
    return {name: values[name] for name in tensors}


def load_causal_lm(
    folder: Path, settings: BaseSettings, device: torch.device, empty: PreTrainedModel | None = None
) -> PreTrainedModel:
    """Load a base's weights onto the device, in evaluation mode and without gradients.

    empty (PreTrainedModel | None): Its `skeleton`, if there is one already.
    settings (BaseSettings): Settings with an attention implementation that the family has, not "auto".
    RAISES (BaseError): Weights are missing or have another shape, or the quantisation is unavailable here.
    """
    config = read_config(folder, settings)
    if is_int8(folder):
        return _load_int8(folder, config, settings)
    options: dict[str, Any] = {
        "config": config,
        "attn_implementation": settings.attention,
        "use_safetensors": True,
        **weights_of(folder, skeleton_for(folder, config) if empty is None else empty),
    }
    dtype = settings.dtype if settings.dtype == "auto" else getattr(torch, settings.dtype)
    options[DTYPE_SETTING] = getattr(torch, settings.auto_dtype) if dtype == "auto" and settings.auto_dtype else dtype
    if settings.quantization:
        options["quantization_config"] = _quantization_config(settings.quantization, dtype)
    if settings.quantization or device.type != "cpu":
        # Directly onto the device, instead of through the CPU's memory.
        options["device_map"] = {"": device}
    if os.getpid() != _PROCESS:
        # After a fork the first user of torch's thread pool creates it again, and must not be disturbed. But
        # transformers loads with several threads (an occasional RuntimeError, "Invalid thread pool").
        torch.set_num_threads(1)
    try:
        with making_modules, quiet():
            if "state_dict" in options:
                # AutoModelForCausalLM needs a folder in any case, the class itself does not.
                make = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
                model, info = make.from_pretrained(None, output_loading_info=True, **options)
            else:
                model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    except Exception as error:
        # A fault in a folder may show anywhere in transformers and safetensors, as errors of all kinds.
        raise BaseError(
            f"the base in {folder} cannot be loaded with {settings}: {type(error).__name__}: {error}"
        ) from error
    missing = sorted(set(info["missing_keys"]) - tied_weights(model))
    if missing or info["mismatched_keys"]:
        raise BaseError(f"the base in {folder} does not fit its config: {missing or info['mismatched_keys']}.")
    for module in model.modules():
        # At the first prediction bitsandbytes would repack 4-bit weights for a kernel without a gradient.
        if hasattr(module, PACKED_FOR_CPU):
            setattr(module, PACKED_FOR_CPU, False)
    return model.eval().requires_grad_(False)


def _load_int8(folder: Path, config: Any, settings: BaseSettings) -> PreTrainedModel:
    # Memory that is allocated but never written costs nothing.
    with uninitialised(), quiet():
        model = AutoModelForCausalLM.from_config(
            config, attn_implementation=settings.attention, **{DTYPE_SETTING: torch.float32}
        )
    stored = stored_tensors(folder)
    matched = matched_tensors(folder, model)
    of_weights = {name: one for name, one in matched.tensors.items() if one.dtype == STORED}
    missing = [one.name for one in of_weights.values() if f"{one.name}{SCALE}" not in stored]
    if missing or matched.joined:
        raise BaseError(f"the weights in {folder} are incomplete: {(missing or list(matched.joined))[0]} has no scale.")
    scales = {name: stored[f"{one.name}{SCALE}"] for name, one in of_weights.items()}
    fill_int8(model, _read(matched.tensors), _read(scales))
    return model.eval().requires_grad_(False)


def _quantization_config(quantization: str, dtype: Any) -> Any:
    try:
        importlib.import_module("bitsandbytes")
    except (ImportError, RuntimeError, OSError) as error:
        raise BaseError(f"quantization = {quantization!r} needs a working bitsandbytes: {error}") from error
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if dtype == "auto" else dtype,
    )
