"""What distinguishes two configs of one `model_type` as far as the mask is concerned: switches, not sizes."""

from functools import cache
from typing import Any

from transformers import AutoConfig

from .shrink import WINDOW_NAMES

# Switches that change what a layer computes, but not what it sees.
HARMLESS = frozenset(
    (
        "activation_function",
        "add_cross_attention",
        "architectures",
        "attention_bias",
        "auto_map",
        "clip_qkv",
        "dtype",
        "hidden_act",
        "hidden_activation",
        "is_causal",
        "is_decoder",
        "lm_head_bias",
        "mlp_bias",
        "model_type",
        "norm_bias",
        "norm_topk_prob",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "problem_type",
        "qkv_bias",
        "quantization_config",
        "return_dict",
        "scale_embedding",
        "summary_activation",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
        "task_specific_params",
        "tie_word_embeddings",
        "torch_dtype",
        "torchscript",
        "transformers_version",
        "use_bias",
        "use_cache",
        "use_parallel_residual",
        "use_qkv_bias",
    )
)
# Kinds of scaled rotary positions in which a position means the same whatever the length of the text.
STEADY = (None, "default", "linear", "llama3", "yarn")
# Numbers that switch something off when they are null or 0.
ON_OFF = (*WINDOW_NAMES, "attn_logit_softcapping", "attention_chunk_size")


def variant_of(config: Any) -> str:
    """The `model_type`, and each switch that differs from that type's default.

    RETURNS (str): For example "mistral" or "mistral sliding_window=off".
    """
    mine, usual = _switches(config), _default_switches(config.model_type)
    changed = [f"{key}={mine[key]}" for key in sorted(mine) if key in usual and usual[key] != mine[key]]
    return " ".join([config.model_type, *changed])


@cache
def _default_switches(model_type: str) -> dict[str, str]:
    return _switches(AutoConfig.for_model(model_type))


def _switches(config: Any) -> dict[str, str]:
    switches = {}
    for key, value in config.to_dict().items():
        if key in HARMLESS or key.startswith("_"):
            continue
        if key in ON_OFF:
            # A window that another setting switches off does not count.
            switches[key] = "on" if value and getattr(config, "use_sliding_window", True) else "off"
        elif isinstance(value, bool | str):
            switches[key] = str(value).lower() if isinstance(value, bool) else value
    kinds = getattr(config, "layer_types", None)
    if kinds:
        switches["layer_types"] = "+".join(sorted(set(map(str, kinds))))
    switches["positions"] = _positions(config)
    return switches


def _positions(config: Any) -> str:
    """The kinds of scaling that matter, one for all layers or several."""
    said = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    blocks = [value for value in said.values() if isinstance(value, dict)] or [said]
    kinds = {block.get("rope_type", block.get("type")) for block in blocks}
    return "+".join(sorted(str(kind) for kind in kinds if kind not in STEADY)) or "steady"
