"""A small copy of a config: the same classes, switches and kinds of layers, with few layers and small widths.

A model with random weights is created from it in milliseconds, and has the attention of the large one.
"""

import copy
from types import SimpleNamespace
from typing import Any

from ..errors import BaseError

NEEDED = ("num_hidden_layers", "num_attention_heads", "hidden_size")
LAYERS, MOST_KINDS = 4, 4
HEADS, HEAD_WIDTH = 4, 16
HIDDEN = HEADS * HEAD_WIDTH
# Wider than any text of the proof, so that a sliding window hides nothing in it.
WINDOW = 48
POSITIONS = 256
VOCABULARY = 320
DTYPE_NAMES = ("dtype", "torch_dtype")
# Where configs of transformers 5 keep settings that differ between layers.
PER_LAYER = "per_layer_config"
# Suffixes of the number of heads of keys and values.
KEY_HEADS = ("key_value_heads", "num_kv_heads", "kv_n_heads")

# The new value of each size, by its name in transformers' configs. A size that is null or 0 stays so.
SIZES: dict[str, int] = {
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "head_dim": HEAD_WIDTH,
    "global_head_dim": HEAD_WIDTH,
    "swa_head_dim": HEAD_WIDTH,
    "attention_head_dim": HEAD_WIDTH,
    "kv_channels": HEAD_WIDTH,
    "intermediate_size": 96,
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 16,
    "max_position_embeddings": POSITIONS,
    "word_embed_proj_dim": HIDDEN,
    "query_pre_attn_scalar": HEAD_WIDTH,
    "ffn_dim": 96,
    "ffn_hidden_size": 96,
    "n_inner": 96,
    "rotary_dim": HEAD_WIDTH // 2,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "top_k": 2,
    "top_k_experts": 2,
    "num_experts": 6,
    "n_routed_experts": 6,
    "num_local_experts": 6,
    "moe_num_experts": 6,
    # Attention to selected pieces must select among the few that there are.
    "index_topk": 4,
    "keep_window_size": 4,
    "mamba_n_heads": 8,
    "mamba_num_heads": 8,
    "mamba_d_head": HEAD_WIDTH,
    "mamba_d_ssm": HIDDEN,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "qk_head_dim": 24,
    "v_head_dim": 16,
    "num_kv_shared_layers": 0,
    "attention_chunk_size": WINDOW,
    "dim_model_base": HIDDEN,
}
# Names with these suffixes are sizes of the same kind.
ENDINGS: dict[str, int] = {"intermediate_size": 96, "_dim": HEAD_WIDTH, "_rank": 16}
# Larger integers without a known name, such as the size of an embedding table, would make a model large.
LARGEST_UNKNOWN = 4096
WINDOW_NAMES = ("sliding_window", "window_size", "local_attention", "attention_window_size", "sliding_window_size")
SPECIAL = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1}


def shrunken(config: Any, name: str, window: int = WINDOW) -> Any:
    """Create a small copy of a text config.

    config (PretrainedConfig): The config of a causal language model, without vision or audio parts.
    name (str): The base's, for the message.
    window (int): The size of a sliding window, if there is one.
    RAISES (BaseError): It has no number of layers, heads or hidden units to reduce, or refuses smaller ones.
    """
    sizes: list[Any] = [getattr(config, key, None) for key in NEEDED]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise BaseError(
            f"the config of {name!r} ({config.model_type!r}) has no single number of layers, of attention heads and of "
            f"hidden units (but {sizes}): it is not a decoder with the same kind of attention in all layers."
        )
    layers, heads, width = sizes
    try:
        said = config.to_dict()
        if PER_LAYER not in said:
            small = copy.deepcopy(config)
            _shrink(small, layers, heads, width, window)
            return small
        # Settings that differ between layers cannot be changed in such a config: a new one is created.
        each = said.pop(PER_LAYER)
        values = SimpleNamespace(**said)
        kept = _shrink(values, layers, heads, width, window)
        smaller = {
            kept.index(int(layer)): {
                key: _new_size(key, value, heads, width, window) or value for key, value in overrides.items()
            }
            for layer, overrides in each.items()
            if int(layer) in kept
        }
        return type(config).from_dict({**vars(values), PER_LAYER: smaller})
    except Exception as error:
        # Configs of transformers 5 validate their values, each in its own way.
        raise BaseError(
            f"a small copy of the config of {name!r} ({config.model_type!r}), on which a base is tried before it is "
            f"loaded, cannot be made: {type(error).__name__}: {error}."
        ) from error


def _shrink(small: Any, layers: int, heads: int, width: int, window: int) -> list[int]:
    """Change a config in place. RETURNS (list[int]): The layers that are kept."""
    kept = _chosen_layers(small, layers)
    rotary = _rotary_width(small)
    _shrink_special(small)
    _cut_lists(small, layers, kept)
    _shrink_sizes(small, heads, width, window)
    _shrink_positions(small, rotary)
    return kept


def _shrink_special(small: Any) -> None:
    # Parts for images and sound of a model that is not only one of language are made, too, but nothing runs through
    # them.
    for part, layers in (("vision_config", "num_hidden_layers"), ("audio_config", "num_blocks")):
        if getattr(getattr(small, part, None), layers, None):
            setattr(getattr(small, part), layers, 1)
    for key, new in SPECIAL.items():
        if getattr(small, key, None) is not None:
            setattr(small, key, new)
    for key in DTYPE_NAMES:
        if key in vars(small):
            setattr(small, key, None)
    for key, value in vars(small).items():
        if isinstance(value, float) and ("dropout" in key or "pdrop" in key or key == "layerdrop"):
            setattr(small, key, 0.0)
    if getattr(small, "quantization_config", None) is not None:
        del small.quantization_config


def _aliases(config: Any) -> dict[str, str]:
    return getattr(config, "attribute_map", None) or {}


def _chosen_layers(config: Any, layers: int) -> list[int]:
    """The first layer of each kind, filled up with others to a few."""
    lists = [list(map(str, value)) for value in _per_layer(config, layers).values()]
    # A list of distinct numbers, such as one per layer, does not tell kinds.
    kinds = [value for value in lists if len(set(value)) <= MOST_KINDS]
    firsts: dict[Any, int] = {}
    for layer in range(layers):
        firsts.setdefault(tuple(value[layer] for value in kinds), layer)
    others = [layer for layer in range(layers) if layer not in firsts.values()]
    return sorted([*firsts.values(), *others[: max(0, LAYERS - len(firsts))]])


def _per_layer(config: Any, layers: int) -> dict[str, Any]:
    """The settings of a config that list a value per layer."""
    lists = {key: value for key, value in vars(config).items() if isinstance(value, list | tuple)}
    return {key: value for key, value in lists.items() if len(value) == layers > 1}


def _cut_lists(small: Any, layers: int, kept: list[int]) -> None:
    for key, value in _per_layer(small, layers).items():
        setattr(small, key, [_new_width(key, value[layer]) for layer in kept])
    small.num_hidden_layers = len(kept)


def _shrink_sizes(small: Any, heads: int, width: int, window: int) -> None:
    canonical = {own: general for general, own in _aliases(small).items()}
    rotary = getattr(small, "qk_rope_head_dim", None)
    rotary_alone = rotary and getattr(small, "head_dim", None) == rotary
    for key, value in list(vars(small).items()):
        new = None if key.startswith("_") else _new_size(canonical.get(key, key), value, heads, width, window)
        if new is not None:
            setattr(small, key, new)
    if rotary_alone:
        small.head_dim = SIZES["qk_rope_head_dim"]


def _new_width(name: str, value: Any) -> Any:
    """The new value of a width that is listed per layer; other settings stay."""
    known = isinstance(value, int) and name.endswith("intermediate_size")
    return min(value, SIZES["intermediate_size"]) if known else value


def _new_size(name: str, value: Any, heads: int, width: int, window: int) -> int | None:
    """The new value of a setting; None if it stays."""
    if isinstance(value, bool) or not isinstance(value, int) or not value or name in ("num_hidden_layers", *SPECIAL):
        return None
    if name.endswith(KEY_HEADS):
        return {1: 1, heads: HEADS}.get(value, HEADS // 2)
    if name in WINDOW_NAMES:
        return window
    for size in (SIZES.get(name), *(size for ending, size in ENDINGS.items() if name.endswith(ending))):
        if size is not None:
            return min(value, size)
    return HIDDEN if value == width or value > LARGEST_UNKNOWN else None


def _shrink_positions(small: Any, rotary: int) -> None:
    """Shorten lists with a factor per frequency in the scaling of rotary positions to the new number of frequencies.

    rotary (int): The rotated width of a head before.
    """
    kept = min(rotary, _rotary_width(small)) // 2
    for key in ("rope_scaling", "rope_parameters"):
        said = vars(small).get(key)
        if isinstance(said, dict):
            setattr(small, key, _scaled(said, kept))


def _scaled(said: dict[str, Any], kept: int) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for key, value in said.items():
        if isinstance(value, dict):
            changed[key] = _scaled(value, kept)
        elif key in ("short_factor", "long_factor") and isinstance(value, list):
            changed[key] = value[:kept]
        elif key == "original_max_position_embeddings" and value:
            changed[key] = min(value, POSITIONS // 2)
        elif key == "mrope_section":
            changed[key] = [kept - 2 * (kept // 3), kept // 3, kept // 3]
        else:
            changed[key] = value
    return changed


def _rotary_width(config: Any) -> int:
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    said = getattr(config, "rope_parameters", None) or {}
    share = getattr(config, "partial_rotary_factor", None) or said.get("partial_rotary_factor") or 1.0
    return int(width * share)
