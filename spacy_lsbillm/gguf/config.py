"""The config of a model in a GGUF file: transformers' own reading of it, and what that leaves out."""

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

# Tables of transformers that are no architectures.
NO_ARCHITECTURES = {"general", "tokenizer"}
# By GGUF's name, what transformers' table leaves out for some architectures; it is set where the model's config has it.
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
# Gemma scales attention by the width of a head, and the largest Gemma 2 and 3 by another, which no key says; llama.cpp
# knows those by their number of layers.
GEMMA_27B = {("gemma2", 46), ("gemma3_text", 62)}
ROPE_FACTORS = "rope_freqs.weight"
# LLaMA 3.1 to 3.3: all have these, and a factor of their own.
LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
# Of the embeddings; a row for each piece.
EMBEDDINGS = "token_embd.weight"


def make_config(file: GGUFFile) -> tuple[Any, dict[str, Any]]:
    """The config of a model.

    RETURNS (tuple): As transformers has it (PretrainedConfig); and its entries as every version of transformers reads
        them, where newer ones have other names.
    RAISES (BaseError): The architecture is not one that transformers reads, or it has a scaling of positions that is
        not read.
    """
    entries = _entries(file)
    model_type = entries["model_type"]
    default = AutoConfig.for_model(model_type)
    for key, name in BESIDE.items():
        value = file.value(key)
        if value is not None and name not in entries and _has(default, name):
            entries[name] = value or None
    for name in SPECIAL_PIECES:
        # The default of a family is that of its first model's vocabulary.
        entries.setdefault(name, None)
    if EMBEDDINGS in file.tensors:
        # Some tables do not know its key, and a vocabulary may be filled up.
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
        # Each family checks its config in its own way.
        raise BaseError(
            f"{file.name} describes a model that transformers cannot build ({type(error).__name__}: {error}). Fetch it "
            f"again, or the original in Hugging Face's format."
        ) from error


def _has(default: Any, name: str) -> bool:
    """Whether a family's config has a setting, and not a value that it computes."""
    if name in ROPE_SETTINGS and hasattr(default, "rope_parameters"):
        # transformers 5 has them there, and takes them under the old names.
        return name == "rope_theta" or name in (default.rope_parameters or {})
    computed = getattr(type(default), name, None)
    return hasattr(default, name) and not (isinstance(computed, property) and computed.fset is None)


def _add_widths(file: GGUFFile, entries: dict[str, Any], default: Any) -> None:
    """What follows from the width of a head: how much of it is rotated, and what attention is scaled by."""
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
    """As transformers' table has them."""
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
    # The name of the model, and what is the tokenizer's.
    for name in ("_model_name_or_path", "unk_token_id"):
        entries.pop(name, None)
    return entries


def _write_stand_in(file: GGUFFile, path: Path) -> Path:
    """A file with the same metadata, without the vocabulary, and the names of the tensors without their values: what
    transformers takes a config from, which reads it all at once."""
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
    """GGUF has the result alone, a factor per frequency: the settings that give just this one."""
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
