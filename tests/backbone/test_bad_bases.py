"""Bases and adapters that cannot be used: one clear error each, before any long work."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from spacy_lsbillm.backbone import BackboneSettings, BaseSettings, LoraSettings, load_backbone
from spacy_lsbillm.backbone import weights as weights_module
from spacy_lsbillm.backbone.fingerprint import fingerprint
from spacy_lsbillm.errors import AdapterError, BaseError, SettingError

CPU = torch.device("cpu")


@pytest.fixture
def copied(make_base, tmp_path):
    """A copy of a tiny base, to be damaged."""
    return shutil.copytree(make_base("llama"), tmp_path / "base")


@pytest.fixture
def weights_untouched(monkeypatch):
    """Reading the weights is the long work, so it must not begin."""

    def fail(*args, **kwargs):
        raise AssertionError("the weights were read before the settings were checked")

    monkeypatch.setattr(weights_module.AutoModelForCausalLM, "from_pretrained", fail)


def load(folder, unmask="all", lora=None, **settings):
    return load_backbone(BackboneSettings(BaseSettings(str(folder), **settings), unmask, lora), device=CPU)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./no/such/folder", "no folder"),
        ("/no/such/folder", "no folder"),
        ("nobody/no-such-model", "hub"),
        ("assets/basis", "relative to"),
    ],
)
def test_missing_folder(name, said, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BaseError, match=said) as caught:
        load(name)
    assert name in str(caught.value)


def test_file_instead_of_a_folder(copied):
    with pytest.raises(BaseError, match="is a file"):
        load(copied / "config.json")


def test_folder_without_a_model(tmp_path):
    with pytest.raises(BaseError, match=r"no config\.json"):
        load(tmp_path)


def test_encoder_is_refused_by_name(tmp_path, weights_untouched):
    BertModel(
        BertConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path)
    with pytest.raises(BaseError, match=r"\(bert\).*with no layer unmasked, position 0 .*: moved by .*check-base"):
        load(tmp_path)


def test_unreadable_config(copied, weights_untouched):
    (copied / "config.json").write_text("{")
    with pytest.raises(BaseError, match=r"config\.json cannot be read"):
        load(copied)


def test_missing_weights_are_named(copied, weights_untouched):
    tensors = load_file(copied / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseError, match=r"model\.layers\.1\.mlp\.up_proj\.weight.*random"):
        load(copied)


def test_weights_of_another_shape(copied):
    tensors = load_file(copied / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 3)
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseError, match="up_proj"):
        load(copied)


def test_truncated_weights(copied, weights_untouched):
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(BaseError, match="not a complete safetensors file"):
        load(copied)


def test_pickled_weights_are_refused(copied, weights_untouched):
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(BaseError, match=r"pytorch_model\.bin: save it again as safetensors"):
        load(copied)


def test_missing_tokenizer(copied, weights_untouched):
    for path in copied.glob("*token*"):
        path.unlink()
    with pytest.raises(BaseError, match="no tokenizer"):
        load(copied)


def test_tokenizer_without_offsets(copied, weights_untouched):
    for path in copied.glob("*token*"):
        path.unlink()
    (copied / "vocab.json").write_text(json.dumps({"<unk>": 0, "a": 1}))
    (copied / "merges.txt").write_text("")
    settings = {"tokenizer_class": "CTRLTokenizer", "unk_token": "<unk>"}
    (copied / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(BaseError, match=r"CTRLTokenizer.*offsets"):
        load(copied)


def test_mask_and_adapter_are_checked_before_the_weights(make_base, weights_untouched):
    with pytest.raises(ValueError, match="do not divide"):
        load(make_base("llama"), "000")
    for targets in (["q_proj", "qq_proj"], r".*\.qq_proj"):
        with pytest.raises(AdapterError, match=r"qq_proj.*down_proj.*v_proj"):
            load(make_base("llama"), lora=LoraSettings.read({"target_modules": targets}))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("dtype", "float8"), ("quantization", "nf5"), ("attention", "flash_attention_2"), ("name", "")],
)
def test_settings_out_of_range(setting, value):
    with pytest.raises(SettingError, match=setting):
        BaseSettings(**{"name": "x", setting: value})


@pytest.mark.parametrize(
    "block",
    [{"r": 0}, {"r": 1.5}, {"alpha": 0}, {"dropout": 1.0}, {"dropout": -0.1}, {"target_modules": []}, {"rank": 8}],
)
def test_lora_settings_out_of_range(block):
    with pytest.raises(AdapterError, match=next(iter(block))):
        LoraSettings.read(block)


def test_fingerprint_tells_bases_apart_but_not_how_they_are_sharded(make_base, tmp_path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(make_base("llama"))
    whole = fingerprint(make_base("llama"))
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    assert fingerprint(tmp_path / "sharded") == whole
    model.to(torch.bfloat16).save_pretrained(tmp_path / "bfloat16")
    assert fingerprint(tmp_path / "bfloat16") != whole
    assert fingerprint(make_base("llama", seed=1)) != whole
    tensors = load_file(make_base("llama") / "model.safetensors")
    tensors["model.norm.weight"][-1] += 1
    (tmp_path / "changed").mkdir()
    save_file(tensors, tmp_path / "changed" / "model.safetensors")
    assert fingerprint(tmp_path / "changed") != whole


def test_a_mix_of_layers_that_are_wider_than_the_output(make_base, weights_untouched):
    base = BaseSettings(str(make_base("opt", word_embed_proj_dim=16)))
    with pytest.raises(BaseError, match=r"scalar_mix = 'all' is not allowed .* 32 numbers.* 16"):
        load_backbone(BackboneSettings(base, scalar_mix="all"), device=CPU)
