"""The backbone apart from its masks: training, precision, adapters, depth, mixes. Masks are in test_families.py."""

import subprocess
import sys

import pytest
import torch
from backbones import batch, load
from tiny import FAMILIES

from spacy_lsbillm.backbone import LoraSettings
from spacy_lsbillm.backbone.families import decoder_of, layers_of
from spacy_lsbillm.errors import AdapterError

families = pytest.mark.parametrize("family", FAMILIES)


def gradients(backbone):
    """The gradients of a loss that weights all states differently."""
    ids, mask = batch(padded=True)
    states = backbone.states(ids, mask)[mask.bool()]
    (states * torch.randn(states.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    return {name: parameter.grad for name, parameter in backbone.trainable().items()}


@families
def test_gradient_checkpointing_gives_the_same_gradients_and_keeps_less(make_base, family):
    folder = make_base(family)
    found, kept = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        backbone = load(folder, lora=LoraSettings(dropout=0.0), gradient_checkpointing=checkpointing)
        backbone.model.train()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            found.append(gradients(backbone))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2
    for name, plain in found[0].items():
        torch.testing.assert_close(found[1][name], plain)
    assert any(plain.abs().max() > 0 for plain in found[0].values())


@families
def test_gradients_reach_the_adapter_alone(make_base, family):
    backbone = load(make_base(family), "all", lora=LoraSettings())
    backbone.model.train()
    ids, mask = batch(padded=True)
    backbone.states(ids, mask).sum().backward()
    for name, parameter in backbone.model.named_parameters():
        assert (parameter.grad is not None) == ("lora_" in name), name


@pytest.mark.parametrize("quantization", ["nf4", "fp4", "int8"])
def test_a_quantised_base_takes_a_training_step(make_base, quantization):
    backbone = load(make_base("llama"), "all", lora=LoraSettings(r=4, dropout=0.0), quantization=quantization)
    linear = backbone.model.get_submodule("base_model.model.model.layers.0.mlp.up_proj.base_layer").weight
    assert type(linear).__name__ in ("Params4bit", "Int8Params")
    ids, mask = batch(padded=True)
    backbone.model.train()
    before = backbone.states(ids, mask)[mask.bool()][:, 0].mean()
    optimizer = torch.optim.Adam(backbone.trainable().values(), lr=0.01)
    before.backward()
    optimizer.step()
    assert backbone.states(ids, mask)[mask.bool()][:, 0].mean() < before - 0.01


def test_bfloat16_keeps_the_adapter_in_float32(make_base):
    backbone = load(make_base("llama"), "all", lora=LoraSettings(), dtype="bfloat16")
    assert backbone.states(*batch(padded=True)).dtype == torch.bfloat16
    assert {p.dtype for p in backbone.trainable().values()} == {torch.float32}


def test_dora_over_8_bit_weights_is_refused_on_a_cpu(make_base):
    """peft would fail in the second forward pass, with an unrelated message."""
    with pytest.raises(
        AdapterError, match=r"lora.use_dora = True is not allowed with quantization = \"int8\" on a CPU"
    ):
        load(make_base("llama"), lora=LoraSettings(use_dora=True), quantization="int8")
    load(make_base("llama"), lora=LoraSettings(use_dora=True), quantization="nf4").states(*batch(padded=False))


@pytest.mark.parametrize("extra", [{"use_rslora": True}, {"use_dora": True}, {"target_modules": ["q_proj", "v_proj"]}])
def test_lora_variants_start_as_the_base(make_base, extra):
    ids, mask = batch(padded=True)
    plain = load(make_base("llama"), "all").states(ids, mask)
    adapted = load(make_base("llama"), "all", lora=LoraSettings.read(extra))
    torch.testing.assert_close(adapted.states(ids, mask), plain, rtol=1e-4, atol=1e-4)
    config = adapted.model.peft_config["default"]
    assert all(
        getattr(config, key) == (set(value) if isinstance(value, list) else value) for key, value in extra.items()
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "smollm3", "gemma3_text", "opt"])
def test_a_shallower_base_gives_the_states_of_its_layer(make_base, family):
    """Depth 2 must give the states of the whole model after two layers, with the last norm applied."""
    ids, mask = batch(padded=True)
    whole, shallow = load(make_base(family), "none"), load(make_base(family), "none", depth=2)
    seen = {}
    found = whole.family
    decoder = decoder_of(whole.causal_lm, found)
    hook = lambda module, args, output: seen.update(state=output[0] if isinstance(output, tuple) else output)  # noqa: E731
    layers_of(decoder, found)[1].register_forward_hook(hook)
    whole.states(ids, mask)
    expected = decoder.get_submodule(found.norm)(seen["state"])
    torch.testing.assert_close(shallow.states(ids, mask), expected)
    assert len(shallow.plan.unmasked) == 2
    assert len(layers_of(decoder_of(shallow.causal_lm, found), found)) == 2


@families
def test_a_mix_of_layers_learns_and_starts_as_their_mean(make_base, family):
    ids, mask = batch(padded=True)
    real = mask.bool()
    parts = [load(make_base(family), "from:1", depth=depth).states(ids, mask)[real] for depth in (2, 3, 4)]
    backbone = load(make_base(family), "from:1", scalar_mix="layers:1-3")
    torch.testing.assert_close(backbone.states(ids, mask)[real], sum(parts) / 3, rtol=1e-4, atol=1e-4)
    assert set(backbone.trainable()) == {"mix.weights", "mix.scale"}
    assert all(gradient.abs().max() > 0 for gradient in gradients(backbone).values())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"depth": 5}, "4 layers"),
        ({"depth": 2, "unmask": "layers:2"}, "no layer 2"),
        ({"scalar_mix": "none"}, "names no layer"),
        ({"scalar_mix": "from:4"}, "scalar_mix = 'from:4'"),
        ({"scalar_mix": "last"}, "scalar_mix = 'last'"),
    ],
)
def test_depth_and_mix_out_of_range(make_base, settings, said):
    with pytest.raises(ValueError, match=said):
        load(make_base("llama"), **settings)


@families
def test_a_twin_shares_the_base_and_nothing_else(make_base, family):
    one = load(make_base(family), "0011", lora=LoraSettings(dropout=0.0), scalar_mix="all")
    other = one.twin()
    frozen = {p.data_ptr() for p in one.model.parameters() if not p.requires_grad}
    assert {p.data_ptr() for p in other.model.parameters() if not p.requires_grad} == frozen
    ids, mask = batch(padded=True)
    before = one.states(ids, mask)
    assert torch.equal(other.states(ids, mask), before)
    for parameter in other.trainable().values():
        parameter.data += 0.1
    assert torch.equal(one.states(ids, mask), before)
    assert not torch.equal(other.states(ids, mask), before)


@pytest.mark.slow
def test_it_is_imported_without_a_word():
    """On CPUs with AVX512-BF16, bitsandbytes asks for a package that is of no use here."""
    done = subprocess.run([sys.executable, "-c", "import spacy_lsbillm.backbone, peft"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
