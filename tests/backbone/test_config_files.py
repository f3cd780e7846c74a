"""Bases written by other versions and other tools: the same states, or a refusal.

It needs no spaCy, and runs on transformers 4.53 and 5.x alike.
"""

import json
import shutil

import pytest
import torch
from backbones import CPU, batch, load
from safetensors.torch import load_file, save_file
from tiny import FAMILIES

from spacy_lsbillm.backbone import LoraSettings, load_stored, save_backbone
from spacy_lsbillm.backbone.config_arithmetic import arithmetic_of, differences
from spacy_lsbillm.backbone.config_file import READS_ROPE_PARAMETERS
from spacy_lsbillm.backbone.tokenizer import load_tokenizer
from spacy_lsbillm.errors import BaseError

ROPE_KEYS = (
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "rope_local_base_freq",
    "rotary_emb_base",
    "rotary_pct",
    "partial_rotary_factor",
)
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}
LINEAR = {"rope_type": "linear", "factor": 8.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
# A family, and the same positions in the notation of transformers 4 and of transformers 5.
FORMS = {
    "theta": ("llama", {"rope_theta": 5e5}, {"rope_type": "default", "rope_theta": 5e5}),
    "llama3": ("llama", {"rope_theta": 5e5, "rope_scaling": LLAMA3}, {**LLAMA3, "rope_theta": 5e5}),
    "yarn": ("qwen2", {"rope_theta": 1e6, "rope_scaling": YARN}, {**YARN, "rope_theta": 1e6}),
    "partial": (
        "gpt_neox",
        {"rotary_emb_base": 2e4, "rotary_pct": 0.5},
        {"rope_type": "default", "rope_theta": 2e4, "partial_rotary_factor": 0.5},
    ),
    "two kinds of layers": (
        "gemma3_text",
        {"rope_theta": 3e5, "rope_local_base_freq": 5e3, "rope_scaling": LINEAR},
        {
            "full_attention": {**LINEAR, "rope_theta": 3e5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
        },
    ),
}


def written(folder, target, **settings):
    """A copy of a base with other positions in its config.json."""
    shutil.copytree(folder, target)
    path = target / "config.json"
    said = {key: value for key, value in json.loads(path.read_text()).items() if key not in ROPE_KEYS}
    path.write_text(json.dumps({**said, **settings}))
    return target


@pytest.mark.parametrize("form", FORMS)
def test_positions_are_the_same_in_the_words_of_either_version(make_base, tmp_path, form):
    family, old, new = FORMS[form]
    one = written(make_base(family), tmp_path / "old", **old)
    other = written(make_base(family), tmp_path / "new", rope_parameters=new)
    plain = written(make_base(family), tmp_path / "plain")
    ids, mask = batch(padded=True)
    expected, found, default = (load(folder).states(ids, mask)[mask.bool()] for folder in (one, other, plain))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (expected - default).abs().max() > 1e-3
    assert differences(arithmetic_of(one), arithmetic_of(other)) == []
    assert differences(arithmetic_of(plain), arithmetic_of(other)) != []


@pytest.mark.skipif(READS_ROPE_PARAMETERS, reason="transformers 5 has them")
@pytest.mark.parametrize(
    ("family", "rope"),
    [
        ("llama", {"full_attention": {"rope_theta": 1e4}, "sliding_attention": {"rope_theta": 1e4}}),
        ("llama", {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
    ],
)
def test_positions_that_an_older_version_cannot_have_are_refused(make_base, tmp_path, family, rope):
    folder = written(make_base(family), tmp_path / "base", rope_parameters=rope)
    with pytest.raises(BaseError, match=r"rope_parameters|per kind of layer.*transformers 5"):
        load(folder)


def test_a_tokenizer_that_transformers_5_has_saved(make_base, tmp_path):
    folder = shutil.copytree(make_base("llama"), tmp_path / "base")
    path = folder / "tokenizer_config.json"
    said = json.loads(path.read_text())
    said |= {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<a>", "<b>"], "backend": "tokenizers"}
    path.write_text(json.dumps(said))
    one, other = load_tokenizer(make_base("llama")), load_tokenizer(folder)
    text = "book a table for two"
    assert one(text)["input_ids"] == other(text)["input_ids"]
    assert other.bos_token == one.bos_token == "<s>"


@pytest.mark.parametrize("layout", ["language_model.", "model.language_model."])
def test_the_language_part_of_a_checkpoint_of_several_modalities(make_base, tmp_path, layout):
    text = make_base("gemma3_text")
    folder = shutil.copytree(text, tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    if layout == "language_model.":
        tensors = {f"language_model.{name}": value for name, value in tensors.items()}
    else:
        tensors = {name.replace("model.", "model.language_model.", 1): value for name, value in tensors.items()}
    tensors["vision_tower.patches.weight"] = torch.zeros(3, 3)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    said = json.loads((folder / "config.json").read_text())
    whole = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "text_config": said}
    (folder / "config.json").write_text(json.dumps(whole))
    ids, mask = batch(padded=True)
    expected = load(text).states(ids, mask)
    backbone = load(folder, lora=LoraSettings(r=4))
    assert backbone.config.model_type == "gemma3_text"
    torch.testing.assert_close(backbone.states(ids, mask), expected, rtol=0, atol=0)
    for store_base in ("copy", "merged"):
        saved = tmp_path / store_base
        saved.mkdir()
        save_backbone(backbone, saved, store_base)
        stored = load_stored(saved, backbone.settings, CPU)
        torch.testing.assert_close(stored.states(ids, mask), expected, rtol=0, atol=1e-5)


def test_a_type_that_the_installed_version_does_not_know(make_base, tmp_path):
    folder = shutil.copytree(make_base("llama"), tmp_path / "base")
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, "model_type": "llama9"}))
    with pytest.raises(BaseError, match=r"'llama9', which transformers .* does not know.*newer"):
        load(folder)
    (folder / "config.json").write_text(json.dumps({**said, "model_type": "x", "auto_map": {"AutoConfig": "m.C"}}))
    with pytest.raises(BaseError, match=r"its own model code.*not run"):
        load(folder)


def test_a_type_without_a_causal_language_model(make_base, tmp_path):
    folder = shutil.copytree(make_base("llama"), tmp_path / "base")
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(BaseError, match=r"'vit', for which transformers has no causal language model"):
        load(folder)


@pytest.mark.skipif("mixtral" not in FAMILIES, reason="this version of transformers has no Mixtral")
def test_the_adapter_of_a_mixture_of_experts_is_on_its_attention(make_base):
    backbone = load(make_base("mixtral"), lora=LoraSettings())
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in backbone.adapter_parameters()} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    }
