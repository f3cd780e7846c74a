"""The command `python -m spacy lsbillm check-base`."""

import re
import shutil

from transformers import AutoConfig, AutoModelForCausalLM
from typer.testing import CliRunner

from spacy_lsbillm.cli import app


def check(folder):
    result = CliRunner().invoke(app, ["check-base", str(folder)])
    return result.exit_code, " ".join(re.sub(r"\x1b\[[0-9;]*m", "", result.output).split())


def test_a_base_that_works(make_base):
    code, output = check(make_base("llama"))
    assert code == 0
    assert "sdpa: with layer 3 unmasked, position 0 moves when the last piece changes moved by" in output
    assert "The mask can be removed" in output
    assert "short texts share rows" in output
    assert "parameters, none missing" in output
    assert "with character offsets" in output


def test_a_base_that_does_not_says_what_was_measured(tmp_path):
    config = AutoConfig.for_model("bloom", hidden_size=32, n_layer=2, n_head=4, vocab_size=400)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    code, output = check(tmp_path)
    assert code == 1
    assert "Not usable with transformers" in output
    assert "ALiBi" in output
    assert "tokenizer:" in output


def test_a_config_alone_is_enough(make_base, tmp_path):
    folder = shutil.copytree(make_base("qwen2"), tmp_path / "base")
    (folder / "model.safetensors").unlink()
    code, output = check(folder)
    assert code == 0
    assert "not downloaded, so not checked" in output


def test_wrong_weights_are_named(make_base, tmp_path):
    folder = shutil.copytree(make_base("llama"), tmp_path / "base")
    shutil.copy(make_base("gpt2") / "model.safetensors", folder / "model.safetensors")
    code, output = check(folder)
    assert code == 1
    assert "lacks weights that a llama model has" in output


def test_no_base(tmp_path):
    code, output = check(tmp_path)
    assert code == 1
    assert "holds no config.json" in output
