"""GGUF files of tiny models in the format of llama.cpp's converter, and wheels that contain one. Needs no spaCy."""

import json
import zipfile
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

# GGUF architectures by the family's name in transformers.
ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "phi3": "phi3",
    "starcoder2": "starcoder2",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "mistral": "llama",
    "falcon": "falcon",
    "stablelm": "stablelm",
    "nemotron": "nemotron",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
}
NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6


def merges_of(tokenizer):
    """The merges as in a GGUF file, "left right"."""
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def write_gguf(path: Path, model, tokenizer=None, *, quantization=Type.F32, pre="gpt-2", drop=(), more=(), **writer):
    """Write a model and a byte-level tokenizer.

    quantization: Quantization of the matrices; vectors stay in float32, as in real files.
    pre: The value of `tokenizer.ggml.pre`.
    drop: Metadata and tensors to leave out, by the end of their names.
    more: Further metadata, as (method of the writer, arguments).
    writer: Further arguments of `gguf.GGUFWriter`.
    """
    out = _Writer(path, ARCHITECTURES[model.config.model_type], drop, **writer)
    _write_shape(out, model.config)
    if tokenizer is not None:
        _write_tokenizer(out, tokenizer, pre)
    for method, *arguments in more:
        getattr(out, method)(*arguments)
    for name, values in gguf_tensors(model):
        kind = quantization if values.ndim > 1 else Type.F32
        out.tensor(name, values, kind)
    out.finish()
    return path


class _Writer:
    """A `gguf.GGUFWriter` that leaves out what should be missing in a test."""

    def __init__(self, path, architecture, drop, **writer):
        self.drop = tuple(drop)
        self.writer = gguf.GGUFWriter(path, architecture, **writer)

    def __getattr__(self, name):
        ends = name.removeprefix("add_")

        def call(*arguments):
            if not self.drop or not ends.endswith(self.drop):
                getattr(self.writer, name)(*arguments)

        return call

    def tensor(self, name, values, kind):
        if not self.drop or not name.endswith(self.drop):
            stored = gguf.quantize(np.ascontiguousarray(values), kind)
            self.writer.add_tensor(name, stored, raw_dtype=kind)

    def finish(self):
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


def _write_shape(out, config):
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    out.add_name(f"Tiny {config.model_type}")
    out.add_license("apache-2.0")
    out.add_languages(["en"])
    out.add_context_length(config.max_position_embeddings)
    out.add_block_count(config.num_hidden_layers)
    out.add_embedding_length(config.hidden_size)
    out.add_feed_forward_length(getattr(config, "intermediate_size", 4 * config.hidden_size))
    out.add_head_count(heads)
    out.add_head_count_kv(getattr(config, "num_key_value_heads", heads))
    out.add_key_length(width)
    out.add_rope_dimension_count(int(width * rotary(config, "partial_rotary_factor", 1.0)))
    out.add_layer_norm_rms_eps(getattr(config, "rms_norm_eps", getattr(config, "norm_eps", 1e-5)))
    out.add_layer_norm_eps(
        next(
            (
                getattr(config, name)
                for name in ("norm_epsilon", "layer_norm_epsilon", "layer_norm_eps")
                if name in vars(config)
            ),
            1e-5,
        )
    )
    if rotary(config, "rope_theta") is not None:
        out.add_rope_freq_base(rotary(config, "rope_theta"))
    if getattr(config, "sliding_window", None):
        out.add_sliding_window(config.sliding_window)
    for cap in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, cap, None):
            getattr(out, f"add_{cap}")(getattr(config, cap))
    if hasattr(config, "num_experts"):
        out.add_expert_count(config.num_experts)
        out.add_expert_used_count(config.num_experts_per_tok)
        out.add_expert_feed_forward_length(config.moe_intermediate_size)
    if hasattr(config, "shared_expert_intermediate_size"):
        out.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)


def rotary(config, name, default=None):
    """A setting of the rotary positions; of those of full attention if there are several."""
    parameters = getattr(config, "rope_parameters", None)
    if parameters:
        return parameters.get("full_attention", parameters).get(name, default)
    return getattr(config, name, default)


def _write_tokenizer(out, tokenizer, pre):
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(pre)
    out.add_token_list(tokens)
    out.add_token_types([CONTROL if token in tokenizer.all_special_tokens else NORMAL for token in tokens])
    out.add_token_merges(merges_of(tokenizer))
    out.add_bos_token_id(tokenizer.bos_token_id)
    out.add_eos_token_id(tokenizer.eos_token_id)
    out.add_add_bos_token(tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id)


def gguf_tensors(model):
    """Names and values of tensors as llama.cpp's converter writes them."""
    config = model.config
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == ARCHITECTURES[config.model_type])
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    experts = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if ".experts." in name:
            _collect_experts(experts, names, name, values)
            continue
        written = names.get_name(name, try_suffixes=(".weight", ".bias"))
        yield written, _as_written(config, written, values)
    for written, parts in experts.items():
        yield written, np.stack([parts[number] for number in sorted(parts)])


def _collect_experts(experts, names, name, values):
    before, after = name.split(".experts.")
    layer = before.split(".")[2]
    if after == "gate_up_proj":
        # transformers 5 stores the experts of a layer in one tensor, with gate above up.
        half = values.shape[1] // 2
        experts[f"blk.{layer}.ffn_gate_exps.weight"] = dict(enumerate(values[:, :half]))
        experts[f"blk.{layer}.ffn_up_exps.weight"] = dict(enumerate(values[:, half:]))
    elif after == "down_proj":
        experts[f"blk.{layer}.ffn_down_exps.weight"] = dict(enumerate(values))
    else:
        number, kind, _ = after.split(".")
        written = names.get_name(f"{before}.experts.{kind}") + ".weight"
        experts.setdefault(written, {})[int(number)] = values


def _as_written(config, name, values):
    kind = config.model_type
    if kind in ("llama", "mistral") and (".attn_q." in name or ".attn_k." in name):
        heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
        rows = values.shape[0] // heads // 2
        return values.reshape(heads, 2, rows, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    if kind in ("gemma2", "gemma3_text", "nemotron") and name.endswith("norm.weight"):
        return values + 1
    turned = ("attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight")
    if kind == "gpt2" and name.endswith(turned):
        return values.T
    if kind == "qwen2_moe" and "ffn_gate_inp_shexp" in name:
        return values[0]
    return values


def write_wheel(path: Path, files: dict[str, bytes | Path], metadata: str = "") -> Path:
    """Write a wheel "tiny-model" 1.0 with some files and a licence."""
    head = f"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n{metadata}\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content.read_bytes() if isinstance(content, Path) else content)
        archive.writestr("tiny_model-1.0.dist-info/METADATA", head)
        archive.writestr("tiny_model-1.0.dist-info/LICENSE", "The licence's text.")
        archive.writestr("tiny_model/data/NOTICE.md", "A notice.")
    return path
