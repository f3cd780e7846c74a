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
# Far above those of any model, and few enough for lists of them.
MOST_LAYERS = 10_000
QUANTIZATIONS = (None, "nf4", "fp4", "int8")
# transformers renamed it in 4.56.
DTYPE_SETTING = (
    "dtype" if tuple(int(part) for part in transformers.__version__.split(".")[:2]) >= (4, 56) else "torch_dtype"
)
# To leave weights as they are allocated, transformers exchanges torch's own initialising functions, for all threads:
# two at a time would put them back in the wrong order, and what another thread makes meanwhile would hold rubbish.
making_modules = threading.RLock()
# Any of these is what a tokenizer is made of.
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "*.model", "*.tiktoken", "tekken.json")
TOKENIZER_CONFIG, BACKEND = "tokenizer_config.json", "TokenizersBackend"
# Whose threads torch's pool has.
_PROCESS = os.getpid()
# Of bitsandbytes' 4-bit layers: whether the CPU has a kernel for prediction.
PACKED_FOR_CPU = "support_avx512bf16_for_cpu"


@dataclass(frozen=True)
class BaseSettings:
    """Which base, and how it is held.

    name (str): A folder, or a hub id.
    revision (str | None): The hub revision.
    dtype (str): Of the weights and the arithmetic; "auto" keeps the stored one.
    quantization (str | None): None, or 4-bit "nf4" or "fp4", or "int8", through bitsandbytes; "int8" of weights that
        are stored so is `int8`'s.
    attention (str): "sdpa" or "eager"; "auto" is the best that computes what the model was trained with.
    depth (int | None): Use the first layers alone, this many; None for all.
    auto_dtype (str | None): What the dtype "auto" stands for; None: what transformers makes of the base's files.
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
            raise SettingError(f"revision = {self.revision!r} must be one of the hub's, as a text, or null.")
        if self.depth is not None and not (is_whole(self.depth) and self.depth >= 1):
            raise SettingError(f"depth = {self.depth!r} is not allowed: it must be a number of layers, or null.")


def read_config(folder: Path, settings: BaseSettings) -> Any:
    """A base's config, cut to the depth that is asked for.

    RAISES (BaseError): There is no readable config, it is of no causal language model, or it has fewer layers.
    """
    _refuse_endless(folder)
    config = load_config(folder, settings.name)
    if is_int8(folder):
        # transformers knows no such kind.
        delattr(config, QUANTIZATION_CONFIG)
    if type(config.num_hidden_layers) is not int or config.num_hidden_layers < 1:
        raise BaseError(
            f"{folder / 'config.json'} says num_hidden_layers = {config.num_hidden_layers!r}: it must be a number of "
            f"layers, at least 1."
        )
    if config.num_hidden_layers > MOST_LAYERS:
        raise BaseError(
            f"{folder / 'config.json'} says num_hidden_layers = {config.num_hidden_layers}, which no model has: "
            f"{MOST_LAYERS} are allowed. Fetch or copy it again."
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
    """The dtype that a base's config names, which is what "auto" stands for; None if it names none."""
    named = getattr(config, DTYPE_SETTING, None)
    return None if named is None else str(named).removeprefix("torch.")


def _refuse_endless(folder: Path) -> None:
    path = endless(folder) if folder.is_dir() else None
    if path is not None:
        raise BaseError(f"{path} is no file, but a device, a pipe or a socket: take it out of the base folder.")


def cut_config(config: Any, depth: int) -> None:
    """Leave out the upper layers, also of what a config lists layer by layer."""
    layers = config.num_hidden_layers
    for key, value in vars(config).items():
        if isinstance(value, list) and len(value) == layers:
            setattr(config, key, value[:depth])
    config.num_hidden_layers = depth


def skeleton(config: Any) -> PreTrainedModel:
    """The causal LM of a config without weights (on the meta device), to check settings against.

    RAISES (BaseError): transformers can make none of it.
    """
    try:
        with torch.device("meta"), uninitialised():
            return AutoModelForCausalLM.from_config(config)
    except Exception as error:
        # Configs are hardly checked: what is wrong with one shows anywhere in the code of a model.
        raise BaseError(
            f"no model of type {config.model_type!r} can be made from what config.json says: {type(error).__name__}: "
            f"{error}"
        ) from error


def skeleton_for(folder: Path, config: Any) -> PreTrainedModel:
    """The `skeleton` of a base with weights.

    RAISES (BaseError): There are not as many layers as the config says, or no model can be made of it.
    """
    layers, tensors = config.num_hidden_layers, len(stored_tensors(folder))
    if layers > tensors:
        # Making a thousand million layers takes all memory there is.
        raise BaseError(
            f"{folder / 'config.json'} says num_hidden_layers = {layers!r}, but there are {tensors} tensors in all. "
            f"Fetch or copy the base again."
        )
    return skeleton(config)


@contextlib.contextmanager
def uninitialised() -> Iterator[None]:
    """What is made inside has weights that are allocated and not set."""
    with making_modules, no_init_weights():
        yield


def weights_of(folder: Path, model: PreTrainedModel) -> dict[str, Any]:
    """How `from_pretrained` is told which weights of a folder, which may hold another model's as well, are this one's.

    model (PreTrainedModel): Its `skeleton`.
    RETURNS (dict): Without "state_dict", it reads the folder itself; with, it is to see nothing of the folder.
    """
    stored = stored_tensors(folder)
    mapping = other_names(stored, model)
    if mapping is not None and not RENAMES_FREELY:
        # transformers 4 adds a prefix to all names, or takes it from them, by what they were before they are renamed.
        return {"state_dict": _read(matched_tensors(folder, model).tensors)}
    if holds_adapter(folder):
        return {"key_mapping": mapping, "state_dict": _read(stored)}
    return {"key_mapping": mapping}


def _read(tensors: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """The values of tensors, mapped into memory."""
    values: dict[str, Tensor] = {}
    for path in sorted({tensor.path for tensor in tensors.values()}):
        with safe_open(path, framework="pt") as file:
            values |= {name: file.get_tensor(one.name) for name, one in tensors.items() if one.path == path}
    return {name: values[name] for name in tensors}


def load_causal_lm(
    folder: Path, settings: BaseSettings, device: torch.device, empty: PreTrainedModel | None = None
) -> PreTrainedModel:
    """Read a base's weights onto the device, in evaluation mode, with no gradient for any of them.

    empty (PreTrainedModel | None): Its `skeleton`, if there is one already.
    settings (BaseSettings): With an attention that the family has, not "auto".
    RAISES (BaseError): Weights are missing or of another shape, or the quantisation cannot be had here.
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
        # Straight to the device, rather than by way of the CPU's memory.
        options["device_map"] = {"": device}
    if os.getpid() != _PROCESS:
        # After a fork whoever first uses torch's pool of threads makes it anew, and cannot be disturbed at it: but
        # transformers loads with several threads (RuntimeError, "Invalid thread pool", now and then).
        torch.set_num_threads(1)
    try:
        with making_modules, quiet():
            if "state_dict" in options:
                # AutoModelForCausalLM wants a folder in any case, the class itself does not.
                make = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
                model, info = make.from_pretrained(None, output_loading_info=True, **options)
            else:
                model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    except Exception as error:
        # What is wrong with a folder shows anywhere in transformers and safetensors, in errors of all kinds.
        raise BaseError(
            f"the base in {folder} cannot be loaded with {settings}: {type(error).__name__}: {error}"
        ) from error
    missing = sorted(set(info["missing_keys"]) - tied_weights(model))
    if missing or info["mismatched_keys"]:
        raise BaseError(f"the base in {folder} does not fit its config: {missing or info['mismatched_keys']}.")
    for module in model.modules():
        # bitsandbytes would pack 4-bit weights in another way at the first prediction, for a kernel without a gradient.
        if hasattr(module, PACKED_FOR_CPU):
            setattr(module, PACKED_FOR_CPU, False)
    return model.eval().requires_grad_(False)


def _load_int8(folder: Path, config: Any, settings: BaseSettings) -> PreTrainedModel:
    # What is allocated and not set takes no memory.
    with uninitialised(), quiet():
        model = AutoModelForCausalLM.from_config(
            config, attn_implementation=settings.attention, **{DTYPE_SETTING: torch.float32}
        )
    stored = stored_tensors(folder)
    matched = matched_tensors(folder, model)
    of_weights = {name: one for name, one in matched.tensors.items() if one.dtype == STORED}
    missing = [one.name for one in of_weights.values() if f"{one.name}{SCALE}" not in stored]
    if missing or matched.joined:
        raise BaseError(f"the weights in {folder} are not whole: {(missing or list(matched.joined))[0]} has no scale.")
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
    """A base's tokenizer.

    rows (int | None): Of the base's embedding, to which it is fitted, see `fit_tokenizer`. None: there is no base.
    RAISES (BaseError): There is none, it gives no character offsets, or it does not fit the embedding.
    """
    _refuse_endless(folder)
    if not any(path for pattern in VOCABULARIES for path in folder.glob(pattern)):
        # transformers makes one up, or says that a library is missing.
        raise BaseError(
            f"{folder} holds no tokenizer, which is a file such as {', '.join(VOCABULARIES[:4])}. Fetch it from where "
            f"the model is from, or save one there: AutoTokenizer.from_pretrained(…).save_pretrained({str(folder)!r})."
        )
    try:
        if _written_by_transformers_5(folder):
            tokenizer = _from_tokenizer_json(folder)
        else:
            # Else transformers asks at the terminal whether to run code that the folder brings.
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
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
    if rows is not None:
        fit_tokenizer(tokenizer, rows, folder)
    return tokenizer


def _written_by_transformers_5(folder: Path) -> bool:
    """Whether a tokenizer has the class that transformers 5 gives to all fast ones, and this is transformers 4."""
    if hasattr(transformers, BACKEND):
        return False
    with contextlib.suppress(OSError, ValueError):
        return parse_json((folder / TOKENIZER_CONFIG).read_text(encoding="utf8")).get("tokenizer_class") == BACKEND
    return False


def _from_tokenizer_json(folder: Path) -> PreTrainedTokenizerFast:
    """What transformers 5 reads of such a folder: tokenizer.json, and the special tokens' names."""
    said = parse_json((folder / TOKENIZER_CONFIG).read_text(encoding="utf8"))
    kept = {key: value for key, value in said.items() if key.endswith("_token") or key == "model_max_length"}
    extra = said.get("extra_special_tokens")
    if isinstance(extra, list):
        kept["additional_special_tokens"] = extra
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **kept)


def longest_position(config: Any) -> int | None:
    """The number of positions that the base was made for, if it has such a limit."""
    length = getattr(config, "max_position_embeddings", None)
    return int(length) if length and math.isfinite(length) else None
