"""A peft adapter in the folder of a base, which transformers would follow to another base, or apply to this one."""

import json
import shutil

import pytest
import torch
from backbones import CPU, batch, load
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import FAMILIES
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from spacy_lsbillm.backbone import BaseSettings, LoraSettings, load_stored, save_backbone
from spacy_lsbillm.backbone.loading import load_base
from spacy_lsbillm.backbone.merge import write_model
from spacy_lsbillm.cli import app
from spacy_lsbillm.errors import BaseError

MIXTURES = [family for family in ("mixtral",) if family in FAMILIES]


def put_adapter(folder, of):
    """The adapter of another base, trained and saved into the folder of its trainer's output."""
    model = AutoModelForCausalLM.from_pretrained(of)
    target = r".*\.(q_proj|c_attn|query_key_value)"
    adapted = get_peft_model(model, LoraConfig(target_modules=target, task_type="CAUSAL_LM", init_lora_weights=False))
    adapted.save_pretrained(folder)
    assert (folder / "adapter_config.json").is_file()


@pytest.fixture
def beside(make_base, tmp_path):
    """A base with the adapter of another one beside it."""

    def make(family="llama"):
        folder = shutil.copytree(make_base(family), tmp_path / "base")
        put_adapter(folder, make_base(family, seed=1))
        return folder

    return make


def states(backbone):
    ids, mask = batch(padded=True)
    return backbone.states(ids, mask)[mask.bool()]


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        *((family, {}) for family in ("llama", "gpt2", "gpt_neox", *MIXTURES)),
        ("llama", {"dtype": "auto"}),
        ("llama", {"depth": 2}),
    ],
)
def test_the_weights_of_the_folder_are_loaded(make_base, beside, family, settings):
    expected = states(load(make_base(family), **settings))
    found = load(beside(family), **settings)
    assert not [name for name, _ in found.model.named_parameters() if "lora" in name]
    torch.testing.assert_close(states(found), expected, rtol=0, atol=0)


def test_quantised(make_base, beside):
    pytest.importorskip("bitsandbytes")
    expected = states(load(make_base("llama"), quantization="nf4"))
    torch.testing.assert_close(states(load(beside(), quantization="nf4")), expected, rtol=0, atol=0)


@pytest.mark.parametrize("store_base", ["reference", "copy", "merged"])
def test_a_pipeline_is_the_same_after_save_and_load(beside, tmp_path, store_base):
    folder = beside()
    backbone = load(folder, lora=LoraSettings(r=4))
    for value in backbone.adapter_parameters().values():
        value.data.add_(0.01)
    before = states(backbone)
    saved = tmp_path / "saved"
    saved.mkdir()
    save_backbone(backbone, saved, store_base)
    stored = load_stored(saved, backbone.settings, CPU)
    torch.testing.assert_close(states(stored), before, rtol=0, atol=1e-4)


def test_the_base_alone_and_a_copy_of_it(make_base, beside, tmp_path):
    """As `perplexity`, `pretrain` and `merge` use them."""
    folder = beside()
    ids, _ = batch(padded=False)
    settings = BaseSettings(str(folder))
    write_model(folder, settings, None, tmp_path / "copy")
    expected = load_base(make_base("llama"), settings, CPU)(input_ids=ids).logits
    for one in (folder, tmp_path / "copy"):
        torch.testing.assert_close(load_base(one, settings, CPU)(input_ids=ids).logits, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kept", [(), ("config.json",), ("config.json", "tokenizer.json", "tokenizer_config.json")])
def test_an_adapter_alone_is_refused_with_the_name_of_its_base(make_base, tmp_path, kept):
    folder, base = tmp_path / "adapter", make_base("llama")
    put_adapter(folder, base)
    for name in kept:
        shutil.copy(base / name, folder)
    said = r"only a peft adapter for the base .*base itself.*merge_and_unload"
    with pytest.raises(BaseError, match=said) as caught:
        load(folder)
    assert str(base) in str(caught.value)
    result = CliRunner().invoke(app, ["check-base", str(folder)])
    assert result.exit_code == 1
    assert kept or "peft adapter" in result.output
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(BaseError, match="only a peft adapter"):
        load(folder)


def test_the_weight_file_that_is_checked_is_the_one_that_is_loaded(make_base, tmp_path):
    """A folder into which a model was saved twice, as one file and in parts."""
    folder = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(make_base("llama", seed=1)).save_pretrained(folder, max_shard_size="20KB")
    shutil.copytree(make_base("llama"), folder, dirs_exist_ok=True)
    expected, found = load(make_base("llama")), load(folder)
    assert found.fingerprint == expected.fingerprint
    torch.testing.assert_close(states(found), states(expected), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("key", "value"), [("transformers_weights", "other.safetensors"), ("configuration_files", ["config.4.0.0.json"])]
)
def test_a_config_that_names_other_files_is_refused(make_base, tmp_path, key, value):
    folder = shutil.copytree(make_base("llama"), tmp_path / "base")
    tensors = {name: tensor * 2 for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "other.safetensors", {"format": "pt"})
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.4.0.0.json").write_text(json.dumps({**said, "rms_norm_eps": 1.0}))
    (folder / "config.json").write_text(json.dumps({**said, key: value}))
    with pytest.raises(BaseError, match=f"names other files .*{key}"):
        load(folder)
