"""The config of a model in a GGUF file: what transformers reads from it, and what that omits."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES, load_gguf_checkpoint
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ..backbone.quiet import quiet
from ..errors import BaseError
from ..files import TemporaryFolder
from .file import ARRAY, GGUFFile, gguf_package

# Tables of transformers that do not belong to architectures.
NO_ARCHITECTURES = {"general", "tokenizer"}
# Keys that transformers' table omits for some architectures, by GGUF's name; set if the model's config has the setting.
BESIDE = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "context_length": "max_position_embeddings",
    "rope.freq_base": "rope_theta",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}
ROPE_SETTINGS = {"rope_theta", "partial_rotary_factor"}
SPECIAL_PIECES = ("bos_token_id", "eos_token_id", "pad_token_id")
# Gemma scales attention by the width of a head, but the largest Gemma 2 and 3 by another number, which no key states;
# llama.cpp recognises those by their number of layers.
GEMMA_27B = {("gemma2", 46), ("gemma3_text", 62)}
ROPE_FACTORS = "rope_freqs.weight"
# LLaMA 3.1 to 3.3: all have these settings, and each its own factor.
LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
# The embeddings have one row per piece.
EMBEDDINGS = "token_embd.weight"


def make_config(file: GGUFFile) -> tuple[Any, dict[str, Any]]:
    """Create the config of a model.

    RETURNS (tuple): As transformers has it (PretrainedConfig); and its entries as every version of transformers reads
        them, where newer ones use other names.
    RAISES (BaseError): transformers does not read this architecture, or its scaling of positions is not supported.
    """
    entries = _entries(file)
    model_type = entries["model_type"]
    default = AutoConfig.for_model(model_type)
    for key, name in BESIDE.items():
        value = file.value(key)
        if value is not None and name not in entries and _has(default, name):
            entries[name] = value or None
    for name in SPECIAL_PIECES:
        # A family's default is the vocabulary size of its first model.
        entries.setdefault(name, None)
    if EMBEDDINGS in file.tensors:
        # Some tables lack its key, and a vocabulary may be padded.
        entries["vocab_size"] = file.tensors[EMBEDDINGS].shape[0]
    _add_widths(file, entries, default)
    scaling = _rope_scaling(file)
    if scaling is not None:
        entries["rope_scaling"] = scaling
    if ROPE_FACTORS in file.tensors:
        entries["rope_scaling"] = _llama3_scaling(file, entries)
    try:
        return _config(entries), entries
    except Exception as error:
        # Each family validates its config in its own way.
        raise BaseError(
            f"{file.name} describes a model that transformers cannot build ({type(error).__name__}: {error}). Fetch it "
            f"again, or the original in Hugging Face's format."
        ) from error


def _has(default: Any, name: str) -> bool:
    """Whether a family's config has a setting, rather than a computed value."""
    if name in ROPE_SETTINGS and hasattr(default, "rope_parameters"):
        # transformers 5 stores them there, and accepts them under the old names.
        return name == "rope_theta" or name in (default.rope_parameters or {})
    computed = getattr(type(default), name, None)
    return hasattr(default, name) and not (isinstance(computed, property) and computed.fset is None)


def _add_widths(file: GGUFFile, entries: dict[str, Any], default: Any) -> None:
    """Add what follows from the width of a head: the rotated part, and the scale of attention."""
    width = file.value("attention.key_length") or entries["hidden_size"] // entries["num_attention_heads"]
    rotated = file.value("rope.dimension_count")
    if rotated and "partial_rotary_factor" not in entries and _has(default, "partial_rotary_factor"):
        entries["partial_rotary_factor"] = rotated / width
    if _has(default, "query_pre_attn_scalar"):
        largest = (entries["model_type"], entries["num_hidden_layers"]) in GEMMA_27B
        wide = entries["hidden_size"] // entries["num_attention_heads"]
        entries["query_pre_attn_scalar"] = wide if largest else width


def _config(entries: dict[str, Any]) -> Any:
    return AutoConfig.for_model(
        **{key: dict(value) if isinstance(value, dict) else value for key, value in entries.items()}
    )


def _entries(file: GGUFFile) -> dict[str, Any]:
    """The entries that transformers' table gives."""
    known = sorted(set(GGUF_SUPPORTED_ARCHITECTURES) - NO_ARCHITECTURES)
    with TemporaryFolder() as place, quiet():
        stand_in = _write_stand_in(file, place / "metadata.gguf")
        try:
            entries = dict(load_gguf_checkpoint(str(stand_in))["config"])
        except (ValueError, NotImplementedError, KeyError) as error:
            raise BaseError(
                f"{file.name} is of the architecture {file.architecture!r}, which transformers "
                f"{transformers.__version__} does not read from GGUF files ({error}). It reads: {', '.join(known)}. "
                f"Fetch the original in Hugging Face's format, or upgrade transformers."
            ) from error
    # The name of the model, and settings of the tokenizer.
    for name in ("_model_name_or_path", "unk_token_id"):
        entries.pop(name, None)
    return entries


def _write_stand_in(file: GGUFFile, path: Path) -> Path:
    """Write a file with the same metadata, without the vocabulary and the values of tensors.

    transformers reads a config from it, and would read the whole file at once.
    """
    gguf = gguf_package()
    writer = gguf.GGUFWriter(path, file.architecture)
    for key, value in file.metadata.items():
        if key == "general.architecture" or key.startswith("split.") or value in ([], ""):
            continue
        kinds = [gguf.GGUFValueType(kind) for kind in file.kinds[key]]
        if key.startswith("tokenizer.") and kinds[0] == ARRAY:
            continue
        writer.add_key_value(key, value, *kinds)
    for name in file.tensors:
        writer.add_tensor(name, np.zeros(1, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _rope_scaling(file: GGUFFile) -> dict[str, Any] | None:
    kind = file.value("rope.scaling.type", "none")
    factor = file.value("rope.scaling.factor") or file.value("rope.scale_linear")
    if kind == "none" and factor in (None, 1.0):
        return None
    if kind in ("none", "linear") and factor:
        return {"rope_type": "linear", "factor": factor}
    original = file.value("rope.scaling.original_context_length")
    if kind == "yarn" and factor and original and not file.value("rope.scaling.yarn_log_multiplier"):
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    raise BaseError(
        f"{file.name} scales its positions by {kind!r} (factor {factor}, original length {original}). Linear and "
        f"yarn scaling are read. Fetch the original in Hugging Face's format."
    )


def _llama3_scaling(file: GGUFFile, entries: dict[str, Any]) -> dict[str, Any]:
    """The settings that give exactly the file's factors: GGUF contains only the result, one factor per frequency."""
    factors = torch.tensor(np.array(file.tensors[ROPE_FACTORS].values()), dtype=torch.float64)
    scaling = {"rope_type": "llama3", "factor": float(factors.max()), **LLAMA3_ROPE}
    config = _config({**entries, "rope_scaling": scaling})
    width = entries.get("head_dim") or config.hidden_size // config.num_attention_heads
    plain = entries["rope_theta"] ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    if plain.shape != factors.shape or not torch.allclose(plain / factors, scaled.double(), rtol=1e-4, atol=0):
        raise BaseError(
            f"{file.name} has factors for its positions ({ROPE_FACTORS}) that are not those of LLaMA 3.1 to 3.3, the "
            f"only ones that are read. Fetch the original in Hugging Face's format."
        )
    return scaling
