"""The commands `pretrain` and `perplexity`."""

import json
import math

import pytest
from corpora import run
from pipelines import trained
from tiny import TEXTS
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.any_stack

TINY = [
    *("--tokenizer.vocab_size", "300", "--tokenizer.every", "1"),
    *("--model.layers", "2", "--model.width", "16", "--model.heads", "2", "--model.key_value_heads", "2"),
    *("--model.feed_forward", "32", "--model.positions", "16"),
    *("--training.tokens", "2000", "--training.batch", "4", "--training.micro_batch", "2"),
    *("--training.checkpoint_every", "10", "--training.precision", "float32"),
]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join(TEXTS * 30), encoding="utf8")
    return path


def pretrain(text, output, *more, code=0):
    return run("lsbillm", "pretrain", output, "--text", text, "--valid", text, *TINY, *more, code=code)


def flat(output):
    return " ".join(output.split())


def test_from_text_to_a_base_and_its_perplexity(text, tmp_path):
    output = flat(pretrain(text, tmp_path / "base"))
    assert "bits per byte" in output
    assert "base.work is no longer needed" in output
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "base").config.num_hidden_layers == 2
    found = tmp_path / "found.json"
    shown = run("lsbillm", "perplexity", tmp_path / "base", text, "--json", found)
    scores = json.loads(found.read_text())
    ours, random = scores[str(tmp_path / "base")], scores["random weights"]
    assert f"{ours['bits_per_byte']:.3f}" in shown
    assert ours["perplexity"] == pytest.approx(math.exp(ours["nats_per_token"]))
    assert random["bits_per_byte"] > ours["bits_per_byte"]
    record = json.loads((tmp_path / "base" / "pretraining.json").read_text())
    assert record["held_out"]["bits_per_byte"] == pytest.approx(ours["bits_per_byte"], rel=1e-4)
    shown = run("lsbillm", "perplexity", tmp_path / "base", text, "--overlap", 8, "--length", 12, "--no-random")
    assert "random" not in shown


@pytest.mark.parametrize("unmask", ["all", "bits:01"])
def test_a_pipeline_is_its_base_again_once_adapter_and_mask_are_off(make_base, text, tmp_path, unmask):
    nlp = trained(make_base(), steps=10, unmask=unmask)
    nlp.to_disk(tmp_path / "pipeline")
    found = tmp_path / "found.json"
    shown = run("lsbillm", "perplexity", tmp_path / "pipeline", text, "--json", found, "--sample", "play some")
    scores = json.loads(found.read_text())
    base, tuned, off = (scores[name] for name in ("base", "tuned, read causally", "adapter off, mask restored"))
    assert base == off
    assert tuned["nats_per_token"] != base["nats_per_token"]
    alone = tmp_path / "alone.json"
    run("lsbillm", "perplexity", make_base(), text, "--json", alone, "--sample", "play some")
    assert json.loads(alone.read_text())[str(make_base())] == base
    assert f"play some|{base['continuation']}" in shown


def test_a_merged_pipeline_has_nothing_to_switch_off(make_base, text, tmp_path):
    trained(make_base(), steps=1, store_base="merged").to_disk(tmp_path / "pipeline")
    message = flat(run("lsbillm", "perplexity", tmp_path / "pipeline", text, code=1))
    assert "has no adapter that could be switched off: it was saved with store_base = merged" in message


def test_an_encoder_has_no_perplexity(text, tmp_path):
    assert "nats per hidden token" in flat(pretrain(text, tmp_path / "base", "--objective", "mlm"))
    message = flat(run("lsbillm", "perplexity", tmp_path / "base", text, code=1))
    assert "is an encoder, trained to predict hidden tokens" in message


def test_a_config_file_with_an_override(text, tmp_path):
    (tmp_path / "c.cfg").write_text("[model]\nlayers = 3\n[training]\nseed = 5\n")
    pretrain(text, tmp_path / "base", "--config", tmp_path / "c.cfg")
    settings = json.loads((tmp_path / "base" / "pretraining.json").read_text())["settings"]
    assert settings["model"]["layers"] == 2
    assert settings["training"]["seed"] == 5


def test_bad_input_is_an_error_that_says_what_to_do(text, tmp_path, make_base):
    for more, message in (
        (("--model.colour", "3"), "there is no setting model.colour"),
        (("--config", tmp_path / "none.cfg"), "there is no config file"),
        (("--gpu-id", "7"), "--gpu-id 7: torch sees 0 GPUs here. Use -1 for the CPU"),
        (("--resume",), "there is no run in"),
        (("--objective", "rtd"), "training.objective = 'rtd' is not allowed"),
    ):
        assert message in flat(pretrain(text, tmp_path / "base", *more, code=1))
    assert not (tmp_path / "base").exists()
    (tmp_path / "empty.txt").write_text("\n")
    for arguments, message in (
        ((tmp_path / "nowhere" / "base", text), "there is no folder"),
        ((make_base(), tmp_path / "none.txt"), "there is no text"),
        ((make_base(), tmp_path / "empty.txt"), "is empty: there is nothing to score"),
        ((make_base(), text, "--length", "65"), "--length 65 is not allowed"),
        ((make_base(), text, "--overlap", "63"), "overlap = 63 is not allowed with windows of 64: use 0 to 62"),
    ):
        assert message in flat(run("lsbillm", "perplexity", *arguments, code=1))
