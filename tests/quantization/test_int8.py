"""Pipelines in eight bits: close to float32, stored bit for bit, and written only if they lose little."""

import json
import shutil

import numpy as np
import pytest
import spacy
import torch
from backbones import batch, load
from pipelines import backbone, build, examples, same, trained, vectors
from safetensors import safe_open
from spacy.tokens import DocBin
from thinc.api import Adam
from tiny import FAMILIES, LAYERS
from typer.testing import CliRunner

from spacy_lsbillm.backbone import BackboneSettings, BaseSettings, LoraSettings, load_stored, save_backbone
from spacy_lsbillm.backbone.int8 import Int8Linear, quantised
from spacy_lsbillm.backbone.storage import convert_stored
from spacy_lsbillm.cli import app
from spacy_lsbillm.errors import BaseError, SettingError, StorageError
from spacy_lsbillm.saving.rewriting import rewrite

CPU = torch.device("cpu")
# One family per kind of module: fused projections, transposed weights with a bias, an embedding with a factor, a norm
# without parameters.
KINDS = [family for family in ("llama", "phi3", "gpt2", "gemma3_text", "olmo") if family in FAMILIES]


def run(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


def rounded(base, tmp_path, unmask="all", kept=(), scalar_mix=None, **settings):
    """A backbone with a random adapter, unchanged and in eight bits."""
    lora = LoraSettings(r=4, dropout=0.0)
    exact = load(base, unmask, lora=lora, scalar_mix=scalar_mix, **settings)
    torch.manual_seed(0)
    for name, value in exact.adapter_parameters().items():
        if "lora_B" in name:
            value.data.normal_(std=0.05)
    (tmp_path / "exact").mkdir()
    (tmp_path / "int8").mkdir()
    save_backbone(exact, tmp_path / "exact", "reference")
    convert_stored(tmp_path / "exact", tmp_path / "int8", "int8", kept=kept)
    of_base = BaseSettings(str(base), quantization="int8", **settings)
    return exact, load_stored(tmp_path / "int8", BackboneSettings(of_base, unmask, lora, scalar_mix), CPU)


def states(one, padded=True):
    ids, mask = batch(padded)
    with torch.inference_mode():
        return one.states(ids, mask)[mask.bool()]


def distance(one, other):
    return float((one - other).norm() / one.norm())


def stored_in(folder):
    with safe_open(folder / "int8/model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("family", KINDS)
def test_states_are_close_to_float32(make_base, tmp_path, family):
    exact, small = rounded(make_base(family), tmp_path)
    # The weights of these bases are five times as large as usual, so errors grow faster from layer to layer.
    assert distance(states(exact), states(small)) < 0.15
    assert not [name for name, module in small.causal_lm.named_modules() if type(module) is torch.nn.Linear][1:]
    numbers = [
        value for name, value in stored_in(tmp_path / "int8").items() if name + "_scale" in stored_in(tmp_path / "int8")
    ]
    assert len(numbers) > LAYERS and all(value.dtype == torch.int8 for value in numbers)


@pytest.mark.parametrize(("unmask", "depth"), [("none", None), ("layers:1", None), ("0011", None), ("all", 2)])
def test_masks_and_depths(make_base, tmp_path, unmask, depth):
    exact, small = rounded(make_base("llama"), tmp_path, unmask, depth=depth)
    assert small.plan.unmasked == exact.plan.unmasked
    assert distance(states(exact), states(small)) < 0.1
    ids, mask = batch(False)
    changed = ids.clone()
    changed[:, -1] = 7
    with torch.inference_mode():
        moved = not torch.equal(small.states(ids, mask)[:, 0], small.states(changed, mask)[:, 0])
    assert moved == (unmask != "none")


def test_a_mix_of_layers(make_base, tmp_path):
    exact, small = rounded(make_base("llama"), tmp_path, scalar_mix="all")
    assert small.mix is not None and distance(states(exact), states(small)) < 0.1


def test_layers_that_are_kept_are_exact(make_base, tmp_path):
    exact, small = rounded(make_base("llama"), tmp_path, kept=range(LAYERS))
    kinds = {name for name, module in small.causal_lm.named_modules() if isinstance(module, Int8Linear)}
    assert not kinds
    # The remaining error is that of the embedding.
    assert 0 < distance(states(exact), states(small)) < 0.05


def test_a_row_depends_on_no_other_row():
    torch.manual_seed(0)
    weight, inputs = torch.randn(24, 64), torch.randn(9, 64)
    layer = Int8Linear(*quantised(weight), torch.randn(24))
    alone = layer(inputs[3:4])
    # One state is a thousand times as large as the others, like that of the first piece in many models.
    inputs[0] *= 1000
    assert torch.equal(layer(inputs)[3:4], alone)
    exact = inputs @ weight.T + layer.bias
    errors = (layer(inputs) - exact).norm(dim=1) / exact.norm(dim=1)
    assert errors.max() < 0.03


def test_a_row_of_weights_has_its_own_scale():
    torch.manual_seed(0)
    weight, inputs = torch.randn(24, 64), torch.randn(9, 64)
    weight[0] *= 1000
    exact = inputs @ weight.T
    errors = (Int8Linear(*quantised(weight))(inputs) - exact).norm(dim=0) / exact.norm(dim=0)
    assert errors.max() < 0.03


def test_the_largest_numbers_do_not_overflow():
    # On a CPU that adds pairs of products in 16 bits, these sums are 2 * 127 * 127.
    layer = Int8Linear(*quantised(torch.ones(16, 256)))
    torch.testing.assert_close(layer(torch.ones(4, 256)), torch.full((4, 16), 256.0), rtol=1e-5, atol=0)
    torch.testing.assert_close(layer(-torch.ones(4, 256)), torch.full((4, 16), -256.0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden(value):
    inputs = torch.ones(2, 64)
    inputs[0, 5] = value
    result = Int8Linear(*quantised(torch.ones(8, 64)))(inputs)
    assert not result[0].isfinite().any() and result[1].isfinite().all()


@pytest.fixture(scope="module")
def pipeline(make_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    nlp = trained(make_base("llama"), steps=25)
    nlp.to_disk(folder / "exact")
    rewrite(folder / "exact", folder / "int8", "int8")
    DocBin(docs=[example.reference for example in examples(nlp)]).to_disk(folder / "dev.spacy")
    return folder


def test_loaded_saved_and_sent_bit_for_bit(pipeline, tmp_path):
    nlp = spacy.load(pipeline / "int8")
    expected = vectors(nlp)
    assert not same(vectors(spacy.load(pipeline / "exact")), expected, 1e-6), "nothing was rounded"
    nlp.to_disk(tmp_path / "again")
    sent = spacy.blank("xx")
    sent = spacy.load(pipeline / "int8").from_bytes(nlp.to_bytes())
    twin = spacy.load(tmp_path / "again")
    for other in (twin, sent):
        assert all(np.array_equal(one, two) for one, two in zip(vectors(other), expected, strict=True))
    one, two = (stored_in(folder / "transformer") for folder in (pipeline / "int8", tmp_path / "again"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert run("verify", tmp_path / "again")[0] == 0
    assert run("save", tmp_path / "again", tmp_path / "copy")[0] == 0
    assert same(vectors(spacy.load(tmp_path / "copy")), expected, 0)


def test_it_cannot_be_trained(pipeline):
    nlp = spacy.load(pipeline / "int8")
    with pytest.raises(StorageError, match='saved with store_base = "int8" and has no adapter left to train'):
        nlp.update(examples(nlp), sgd=Adam(0.001))
    fresh = build("somewhere", store_base="int8", quantization="int8")
    with pytest.raises(SettingError, match=r"lsbillm quantize.*cannot be trained"):
        fresh.initialize(lambda: examples(fresh))


@pytest.mark.parametrize(
    ("setting", "value", "error", "told"),
    [
        ("quantization", None, SettingError, 'needs quantization = "int8", not None'),
        ("dtype", "bfloat16", StorageError, "dtype = 'bfloat16' is not allowed"),
        ("store_base", "merged", StorageError, 'saved with store_base = "int8".*cannot be saved'),
        ("name", "another", StorageError, "cannot be overridden"),
    ],
)
def test_settings_that_do_not_fit_the_stored_weights(pipeline, tmp_path, setting, value, error, told):
    with pytest.raises(error, match=told):
        spacy.load(pipeline / "int8", config={"components": {"transformer": {"model": {setting: value}}}}).to_disk(
            tmp_path / "other"
        )


def test_its_weights_are_no_base(pipeline):
    with pytest.raises(BaseError, match=r"stored quantised \(spacy_lsbillm.int8\)"):
        load(pipeline / "int8/transformer/int8")


def test_a_gpu_is_refused_before_anything_is_read(pipeline):
    settings = BackboneSettings(BaseSettings("x", quantization="int8"), "all", LoraSettings())
    with pytest.raises(StorageError, match="for a CPU, but the device is 'cuda'"):
        load_stored(pipeline / "int8/transformer", settings, torch.device("cuda"))


def test_a_weight_without_its_scale(pipeline, tmp_path):
    folder = tmp_path / "transformer"
    shutil.copytree(pipeline / "int8/transformer", folder)
    file = folder / "int8/model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].replace(b"q_proj.weight_scale", b"q_proj.weight_scaly")
    file.write_bytes(content[:8] + header + content[8 + length :])
    record = json.loads((folder / "billm.json").read_text())
    settings = BackboneSettings(BaseSettings(record["base"]["name"], quantization="int8"), "all", LoraSettings())
    with pytest.raises(BaseError):
        load_stored(folder, settings, CPU)


def test_a_mixture_of_experts_is_refused_by_name(make_base, tmp_path):
    with pytest.raises(BaseError, match=r"mixture of experts.*'mixtral'"):
        rounded(make_base("mixtral"), tmp_path)


def test_quantize_writes_what_loses_little(pipeline, tmp_path):
    code, said = run("quantize", pipeline / "exact", pipeline / "dev.spacy", tmp_path / "out", "--max-loss", 100)
    assert code == 0, said
    for part in ("ents_f", "cats_", "words per second", "weights in memory, MB", "The same spans", "times float32"):
        assert part in said, said
    assert same(vectors(spacy.load(tmp_path / "out")), vectors(spacy.load(pipeline / "int8")), 0)
    config = spacy.util.load_config(tmp_path / "out/config.cfg")["components"]["transformer"]["model"]
    assert (config["store_base"], config["quantization"]) == ("int8", "int8")
    assert "weights in 8 bits" in (tmp_path / "out/README.md").read_text(encoding="utf8")
    code, said = run("quantize", tmp_path / "out", pipeline / "dev.spacy", tmp_path / "more")
    assert code == 1 and "in eight bits already" in said
    code, said = run("merge", tmp_path / "out", tmp_path / "more")
    assert code == 1 and 'store_base = "int8"' in said and not (tmp_path / "more").exists()


def test_quantize_says_which_layers_are_to_blame(pipeline, tmp_path, monkeypatch):
    # A made-up loss that disappears if the two worst layers are not quantised.
    import spacy_lsbillm.quantization.run as module

    compared = module._compared
    bytes_of_layer = []

    def worse(exact, small, files):
        found = compared(exact, small, files)
        bytes_of_layer.append(found.weight_bytes[1])
        lost = 0.0 if len(bytes_of_layer) == 3 else 0.2
        object.__setattr__(found, "scores", {"ents_f": (0.8, 0.8 - lost)})
        return found

    monkeypatch.setattr(module, "_compared", worse)
    code, said = run("quantize", pipeline / "exact", pipeline / "dev.spacy", tmp_path / "out")
    assert code == 1 and not (tmp_path / "out").exists()
    assert "Nothing was written: 20.00 points are lost, --max-loss is 0.5" in said
    assert "layer error most in MB" in said and said.count("--keep ") == 2, said
    assert bytes_of_layer[0] < bytes_of_layer[1] < bytes_of_layer[2]
    assert "leave the pipeline in float32" not in said
    monkeypatch.setattr(module, "_compared", compared)
    kept = said.rpartition("--keep ")[2].partition(":")[0]
    code, said = run(
        "quantize", pipeline / "exact", pipeline / "dev.spacy", tmp_path / "out", "--max-loss", 100, "--keep", kept
    )
    assert code == 0 and f"layers {kept} in float32" in said
    modules = backbone(spacy.load(tmp_path / "out")).causal_lm.named_modules()
    rounded_layers = {name.split(".")[2] for name, module in modules if isinstance(module, Int8Linear)}
    assert rounded_layers == {str(i) for i in range(LAYERS)} - set(kept.split(","))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--max-loss", "-1"], "max_loss = -1.0 is not allowed"),
        (["--max-loss", "nan"], "max_loss = nan is not allowed"),
        (["--keep", "7"], "--keep"),
        (["--keep", "first"], "--keep"),
    ],
)
def test_options_that_are_refused(pipeline, tmp_path, options, told):
    code, said = run("quantize", pipeline / "exact", pipeline / "dev.spacy", tmp_path / "out", *options)
    assert code == 1 and told in said and not (tmp_path / "out").exists(), said


def test_a_development_set_without_gold(pipeline, tmp_path):
    nlp = spacy.blank("xx")
    DocBin(docs=[nlp.make_doc("play some jazz")]).to_disk(tmp_path / "bare.spacy")
    code, said = run("quantize", pipeline / "exact", tmp_path / "bare.spacy", tmp_path / "out")
    assert code == 1 and "are they annotated with what it predicts?" in said, said
