"""Checking and loading a base model from a Hugging Face folder."""

import contextlib
import importlib
import math
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import Tensor
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from ..errors import BaseError, SettingError
from ..files import endless, parse_json
from ..values import check_choice, is_whole
from .adapter_files import holds_adapter
from .config_file import load_config
from .families import ATTENTIONS, AUTO
from .int8_files import QUANTIZATION_CONFIG, SCALE, STORED, fill_int8, is_int8
from .matching import RENAMES_FREELY, matched_tensors, other_names, tied_weights
from .quiet import quiet
from .tensor_files import StoredTensor, stored_tensors
from .vocabulary import fit_tokenizer

try:
    # transformers 5.
    from transformers.initialization import no_init_weights
except ImportError:
    from transformers.modeling_utils import no_init_weights

DTYPES = ("float32", "bfloat16", "float16", "auto")
# Far more than any model has, yet few enough for lists with an entry per layer.
MOST_LAYERS = 10_000
QUANTIZATIONS = (None, "nf4", "fp4", "int8")
# transformers renamed it in 4.56.
DTYPE_SETTING = (
    "dtype" if tuple(int(part) for part in transformers.__version__.split(".")[:2]) >= (4, 56) else "torch_dtype"
)
# To leave weights uninitialised, transformers replaces torch's own initialising functions, for all threads: two such
# contexts at a time would restore them in the wrong order, and modules that other threads create meanwhile would hold
# arbitrary values.
making_modules = threading.RLock()
# A tokenizer is loaded from any of these files.
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "*.model", "*.tiktoken", "tekken.json")
TOKENIZER_CONFIG, BACKEND = "tokenizer_config.json", "TokenizersBackend"
# The process whose threads torch's pool has.
_PROCESS = os.getpid()
# The attribute of bitsandbytes' 4-bit layers that says whether the CPU has a kernel for prediction.
PACKED_FOR_CPU = "support_avx512bf16_for_cpu"


@dataclass(frozen=True)
class BaseSettings:
    """Which base to load, and in what form.

    name (str): A folder, or a hub id.
    revision (str | None): The hub revision.
    dtype (str): Dtype of weights and arithmetic; "auto" keeps that of the files.
    quantization (str | None): None, "nf4" or "fp4" (4-bit) or "int8", through bitsandbytes. For weights that are
        stored as int8, "int8" means the layers of module `int8`.
    attention (str): "sdpa" or "eager"; "auto" is the best one that computes what the model was trained with.
    depth (int | None): Use only this many layers, counted from the input; None for all.
    auto_dtype (str | None): What the dtype "auto" stands for; None: what transformers derives from the base's files.
    """

    name: str
    revision: str | None = None
    dtype: str = "float32"
    quantization: str | None = None
    attention: str = AUTO
    depth: int | None = None
    auto_dtype: str | None = None

    def __post_init__(self) -> None:
        for setting, value, allowed in (
            ("dtype", self.dtype, DTYPES),
            ("quantization", self.quantization, QUANTIZATIONS),
            ("attention", self.attention, (AUTO, *ATTENTIONS)),
        ):
            check_choice(setting, value, allowed)
        if not isinstance(self.name, str) or not self.name:
            raise SettingError(f"name = {self.name!r} must be the folder or the hub id of a base model.")
        if self.revision is not None and not isinstance(self.revision, str):
            raise SettingError(f"revision = {self.revision!r} must be the name of a hub revision, or null.")
        if self.depth is not None and not (is_whole(self.depth) and self.depth >= 1):
            raise SettingError(f"depth = {self.depth!r} is not allowed: it must be a number of layers, or null.")


def read_config(folder: Path, settings: BaseSettings) -> Any:
    """Read the config of a base, reduced to the requested depth.

    RAISES (BaseError): There is no readable config, it is not of a causal language model, or it has too few layers.
    """
    _refuse_endless(folder)
    config = load_config(folder, settings.name)
    if is_int8(folder):
        # transformers does not know this model type.
        delattr(config, QUANTIZATION_CONFIG)
    if type(config.num_hidden_layers) is not int or config.num_hidden_layers < 1:
        raise BaseError(
            f"{folder / 'config.json'} says num_hidden_layers = {config.num_hidden_layers!r}: it must be a number of "
            f"layers, at least 1."
        )
    if config.num_hidden_layers > MOST_LAYERS:
        raise BaseError(
            f"{folder / 'config.json'} says num_hidden_layers = {config.num_hidden_layers}; at most {MOST_LAYERS} are "
            f"allowed, more than any model has. Fetch or copy it again."
        )
    if settings.depth is not None:
        layers = config.num_hidden_layers
        if settings.depth > layers:
            raise BaseError(
                f"depth = {settings.depth} is more than the {layers} layers of {settings.name!r}. Use at most {layers}."
            )
        cut_config(config, settings.depth)
    return config


def config_dtype(config: Any) -> str | None:
    """The dtype in a base's config, which is what "auto" stands for; None if there is none."""
    named = getattr(config, DTYPE_SETTING, None)
    return None if named is None else str(named).removeprefix("torch.")


def _refuse_endless(folder: Path) -> None:
    path = endless(folder) if folder.is_dir() else None
    if path is not None:
        raise BaseError(f"{path} is not a file but a device, a pipe or a socket. Remove it from the base folder.")


def cut_config(config: Any, depth: int) -> None:
    """Remove the upper layers from a config, also from its lists with an entry per layer. The config is changed."""
    layers = config.num_hidden_layers
    for key, value in vars(config).items():
        if isinstance(value, list) and len(value) == layers:
            setattr(config, key, value[:depth])
    config.num_hidden_layers = depth


def skeleton(config: Any) -> PreTrainedModel:
    """Create the causal LM of a config without weights (on the meta device), for example to check settings against it.

    RAISES (BaseError): transformers cannot create a model from it.
    """
    try:
        with torch.device("meta"), uninitialised():
            return AutoModelForCausalLM.from_config(config)
    except Exception as error:
        # Configs are hardly validated: a fault in one may show anywhere in the code of a model.
        raise BaseError(
            f"no model of type {config.model_type!r} can be created from config.json: {type(error).__name__}: {error}"
        ) from error


def skeleton_for(folder: Path, config: Any) -> PreTrainedModel:
    """Create the `skeleton` of a base that has weights, which must fit the number of layers.

    RAISES (BaseError): There are fewer tensors than layers in the config, or no model can be created from it.
    """
    layers, tensors = config.num_hidden_layers, len(stored_tensors(folder))
    if layers > tensors:
        # Creating a thousand million layers would use up all memory.
        raise BaseError(
            f"{folder / 'config.json'} says num_hidden_layers = {layers!r}, but the folder has only {tensors} tensors. "
            f"Fetch or copy the base again."
        )
    return skeleton(config)


@contextlib.contextmanager
def uninitialised() -> Iterator[None]:
    """Context in which new modules have weights that are allocated but not initialised."""
    with making_modules, no_init_weights():
        yield


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


def load_tokenizer(folder: Path, rows: int | None = None) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a base.

    rows (int | None): Rows of the base's embedding, to which the tokenizer is fitted (`fit_tokenizer`). None: there is
        no base.
    RAISES (BaseError): There is none, it gives no character offsets, or it does not fit the embedding.
    """
    _refuse_endless(folder)
    if not any(path for pattern in VOCABULARIES for path in folder.glob(pattern)):
        # transformers would invent one, or report a missing library.
        raise BaseError(
            f"{folder} holds no tokenizer, that is, a file such as {', '.join(VOCABULARIES[:4])}. Fetch it from the "
            "source of the model, or save one there: "
            f"AutoTokenizer.from_pretrained(…).save_pretrained({str(folder)!r})."
        )
    try:
        if _written_by_transformers_5(folder):
            tokenizer = _from_tokenizer_json(folder)
        else:
            # Otherwise transformers asks at the terminal whether to run code from the folder.
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        # Tokenizer files are read by several libraries with their own errors, some of them bare `Exception`s.
        raise BaseError(f"{folder} holds no tokenizer that can be read: {error}") from error
    if not tokenizer.is_fast:
        raise BaseError(
            f"the tokenizer in {folder} ({type(tokenizer).__name__}) gives no character offsets, which the alignment "
            f"with spaCy's tokens needs. Save it as a fast tokenizer (tokenizer.json)."
        )
    # The caller cuts documents into windows. Turning these off at the first call would not be safe with threads.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    if rows is not None:
        fit_tokenizer(tokenizer, rows, folder)
    return tokenizer


def _written_by_transformers_5(folder: Path) -> bool:
    """Whether a tokenizer has the class name that transformers 5 gives to all fast tokenizers, while transformers 4
    runs."""
    if hasattr(transformers, BACKEND):
        return False
    with contextlib.suppress(OSError, ValueError):
        return parse_json((folder / TOKENIZER_CONFIG).read_text(encoding="utf8")).get("tokenizer_class") == BACKEND
    return False


def _from_tokenizer_json(folder: Path) -> PreTrainedTokenizerFast:
    """Load what transformers 5 reads from such a folder: tokenizer.json and the names of special tokens."""
    said = parse_json((folder / TOKENIZER_CONFIG).read_text(encoding="utf8"))
    kept = {key: value for key, value in said.items() if key.endswith("_token") or key == "model_max_length"}
    extra = said.get("extra_special_tokens")
    if isinstance(extra, list):
        kept["additional_special_tokens"] = extra
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **kept)


def longest_position(config: Any) -> int | None:
    """The number of positions that the base was made for; None if it has no limit."""
    length = getattr(config, "max_position_embeddings", None)
    return int(length) if length and math.isfinite(length) else None
