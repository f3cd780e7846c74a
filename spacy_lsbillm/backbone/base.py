"""Checking and loading a base model from a Hugging Face folder."""

import contextlib
import importlib
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from ..errors import BaseError, SettingError
from .families import ATTENTIONS, AUTO, FAMILIES, attention_for, family_of
from .tensor_files import StoredTensor, stored_tensors

try:
    # transformers 5.
    from transformers.initialization import no_init_weights
except ImportError:
    from transformers.modeling_utils import no_init_weights

DTYPES = ("float32", "bfloat16", "float16", "auto")
QUANTIZATIONS = (None, "nf4", "fp4", "int8")
# transformers renamed it in 4.56.
DTYPE_SETTING = (
    "dtype" if tuple(int(part) for part in transformers.__version__.split(".")[:2]) >= (4, 56) else "torch_dtype"
)
# To leave weights as they are allocated, transformers exchanges torch's own initialising functions, for all threads:
# two at a time would put them back in the wrong order, and what another thread makes meanwhile would hold rubbish.
making_modules = threading.RLock()
# Of bitsandbytes' 4-bit layers: whether the CPU has a kernel for prediction.
PACKED_FOR_CPU = "support_avx512bf16_for_cpu"


@dataclass(frozen=True)
class BaseSettings:
    """Which base, and how it is held.

    name (str): A folder, or a hub id.
    revision (str | None): The hub revision.
    dtype (str): Of the weights and the arithmetic; "auto" keeps the stored one.
    quantization (str | None): None, or 4-bit "nf4" or "fp4", or "int8", through bitsandbytes.
    attention (str): "sdpa" or "eager"; "auto" is the best that computes what the model was trained with.
    depth (int | None): Use the first layers alone, this many; None for all.
    """

    name: str
    revision: str | None = None
    dtype: str = "float32"
    quantization: str | None = None
    attention: str = AUTO
    depth: int | None = None

    def __post_init__(self) -> None:
        for setting, value, allowed in (
            ("dtype", self.dtype, DTYPES),
            ("quantization", self.quantization, QUANTIZATIONS),
            ("attention", self.attention, (AUTO, *ATTENTIONS)),
        ):
            if value not in allowed:
                raise SettingError(
                    f"{setting} = {value!r} is not allowed. Use one of: {', '.join(map(repr, allowed))}."
                )
        if not isinstance(self.name, str) or not self.name:
            raise SettingError(f"name = {self.name!r} must be the folder or the hub id of a base model.")
        if self.depth is not None and (type(self.depth) is not int or self.depth < 1):
            raise SettingError(f"depth = {self.depth!r} is not allowed: it must be a number of layers, or null.")


def read_config(folder: Path, settings: BaseSettings) -> Any:
    """A base's config, checked to be a decoder that is known to work, and cut to the depth that is asked for.

    RAISES (BaseError): There is no readable config, it is of another family, or it has fewer layers or another
        attention than asked for.
    """
    if not (folder / "config.json").is_file():
        raise BaseError(f"the base folder {folder} holds no config.json: it is not a Hugging Face model folder.")
    try:
        config = AutoConfig.from_pretrained(folder)
    except (ValueError, OSError, KeyError) as error:
        raise BaseError(f"{folder / 'config.json'} cannot be read: {error}") from error
    attention_for(family_of(config, settings.name), settings.attention, settings.name)
    if settings.depth is not None:
        cut_config(config, settings.depth, settings.name)
    return config


def cut_config(config: Any, depth: int, name: str) -> None:
    """Leave out the upper layers, also of what a config lists layer by layer.

    RAISES (BaseError): There are not so many.
    """
    layers = config.num_hidden_layers
    if depth > layers:
        raise BaseError(f"depth = {depth} is more than the {layers} layers of {name!r}. Use at most {layers}.")
    for key, value in vars(config).items():
        if isinstance(value, list) and len(value) == layers:
            setattr(config, key, value[:depth])
    config.num_hidden_layers = depth


def skeleton(config: Any) -> PreTrainedModel:
    """The causal LM of a config without weights (on the meta device), to check settings against."""
    with torch.device("meta"), uninitialised():
        return AutoModelForCausalLM.from_config(config)


@contextlib.contextmanager
def uninitialised() -> Iterator[None]:
    """What is made inside has weights that are allocated and not set."""
    with making_modules, no_init_weights():
        yield


def matched_tensors(folder: Path, model: PreTrainedModel) -> dict[str, StoredTensor]:
    """The stored tensors of a base by the names that its model has for them, without those it has no use for.

    model (PreTrainedModel): Its `skeleton`.
    """
    stored = stored_tensors(folder)
    needed = model.state_dict()
    if not set(needed) & set(stored):
        # Saved without a head, as the original GPT-2 is.
        stored = {f"{model.base_model_prefix}.{name}": tensor for name, tensor in stored.items()}
    for old, new in FAMILIES[model.config.model_type].renamed.items():
        if old in stored and new in needed:
            stored[new] = stored.pop(old)
    return {name: stored[name] for name in needed if name in stored}


def check_weights(folder: Path, model: PreTrainedModel) -> None:
    """Compare the names and shapes of the stored tensors with those the model needs, before any is read.

    model (PreTrainedModel): Its `skeleton`.
    RAISES (BaseError): Some are missing, and would be initialised at random, or have another shape.
    """
    stored = matched_tensors(folder, model)
    needed = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    missing = sorted(set(needed) - tied_weights(model) - set(stored))
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise BaseError(
            f"the base folder {folder} lacks weights that a {model.config.model_type} model has: {shown}. They would "
            f"be random. Fetch the model again, or save it whole."
        )
    for name, tensor in sorted(stored.items()):
        if needed[name] != tensor.shape:
            raise BaseError(
                f"the base folder {folder} has {name} in the shape {tensor.shape}, its config needs {needed[name]}. "
                f"Fetch the model again, with the config that belongs to it."
            )


def tied_weights(model: PreTrainedModel) -> set[str]:
    """Tensors that are the same as others and need not be stored: a tied head."""
    return set(getattr(model, "_tied_weights_keys", None) or ()) if model.config.tie_word_embeddings else set()


def load_causal_lm(folder: Path, settings: BaseSettings, device: torch.device) -> PreTrainedModel:
    """Read a base's weights onto the device, in evaluation mode, with no gradient for any of them.

    RAISES (BaseError): Weights are missing or of another shape, or the quantisation cannot be had here.
    """
    config = read_config(folder, settings)
    attention = attention_for(family_of(config, settings.name), settings.attention, settings.name)
    options: dict[str, Any] = {"config": config, "attn_implementation": attention, "use_safetensors": True}
    dtype = settings.dtype if settings.dtype == "auto" else getattr(torch, settings.dtype)
    options[DTYPE_SETTING] = dtype
    if settings.quantization:
        options["quantization_config"] = _quantization_config(settings.quantization, dtype)
    if settings.quantization or device.type != "cpu":
        # Straight to the device, rather than by way of the CPU's memory.
        options["device_map"] = {"": device}
    try:
        with making_modules, _quiet():
            model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise BaseError(f"the base in {folder} cannot be loaded with {settings}: {error}") from error
    missing = sorted(set(info["missing_keys"]) - tied_weights(model))
    if missing or info["mismatched_keys"]:
        raise BaseError(f"the base in {folder} does not fit its config: {missing or info['mismatched_keys']}.")
    for module in model.modules():
        # bitsandbytes would pack 4-bit weights in another way at the first prediction, for a kernel without a gradient.
        if hasattr(module, PACKED_FOR_CPU):
            setattr(module, PACKED_FOR_CPU, False)
    return model.eval().requires_grad_(False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers warns of what is checked here, such as layers that are left out on purpose."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


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


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A base's tokenizer.

    RAISES (BaseError): There is none, or it gives no character offsets.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        # Tokenizer files are read by several libraries with errors of their own, some of them bare `Exception`s.
        raise BaseError(f"{folder} holds no tokenizer that can be read: {error}") from error
    if not tokenizer.is_fast:
        raise BaseError(
            f"the tokenizer in {folder} ({type(tokenizer).__name__}) gives no character offsets, which the alignment "
            f"with spaCy's tokens needs. Save it as a fast tokenizer (tokenizer.json)."
        )
    # Documents are cut into windows here. Turning these off at the first call would not be safe under threads.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def longest_position(config: Any) -> int | None:
    """The number of positions that the base was made for, if it has such a limit."""
    length = getattr(config, "max_position_embeddings", None)
    return int(length) if length and math.isfinite(length) else None
