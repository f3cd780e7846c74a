"""Two things that make prediction faster without changing results: sequences that share a row, and folded adapters.

It needs no spaCy, and runs on transformers 4.53 and 5.x alike.
"""

import gc
from dataclasses import replace
from functools import cache

import pytest
import torch
from backbones import CPU, batch, load
from backbones import family as proved
from tiny import FAMILIES

from spacy_lsbillm.backbone import Folded, LoraSettings, check_fold, may_fold, room_to_fold
from spacy_lsbillm.errors import SettingError

LENGTHS = (5, 1, 4)
packing = pytest.mark.parametrize(
    ("family", "attention"),
    [(family, attention) for family in FAMILIES if proved(family).packs for attention in proved(family).attentions],
)


def adapted(folder, unmask="all", seed=0, dtype="float32", attention="auto", scalar_mix=None, **lora):
    """A backbone whose adapter has an effect."""
    torch.manual_seed(seed)
    settings = LoraSettings.read({"r": 4, "dropout": 0.0, **lora})
    backbone = load(folder, unmask, attention, settings, scalar_mix, dtype=dtype)
    shake(backbone, seed)
    backbone.model.eval()
    return backbone


def shake(backbone, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.adapter_parameters().values():
            parameter.add_(torch.randn_like(parameter) * 0.1)


@pytest.fixture(scope="module")
def plain(make_base):
    """plain(family, attention): a backbone without an adapter, loaded once."""
    return cache(lambda family, attention: load(make_base(family), "none", attention))


@packing
@pytest.mark.parametrize("unmask", ["none", "all", "0011"])
@torch.no_grad()
def test_sequences_that_share_a_row_do_not_see_each_other(plain, family, attention, unmask):
    """Two rows of three sequences and some padding: each sequence has the states that it has alone.

    This includes sliding windows and layers that stay causal.
    """
    backbone = plain(family, attention)
    backbone.use_mask(unmask)
    backbone.model.eval()
    ids = torch.randint(2, 300, (2, 12), generator=torch.Generator().manual_seed(1))
    place = torch.cat([*map(torch.arange, LENGTHS), torch.zeros(2, dtype=torch.long)]).expand(2, -1)
    mask = torch.ones_like(ids)
    mask[:, sum(LENGTHS) :] = 0
    packed = backbone.states(ids, mask, place)
    start = 0
    for length in LENGTHS:
        part = ids[:, start : start + length]
        alone = backbone.states(part, torch.ones_like(part))
        torch.testing.assert_close(packed[:, start : start + length], alone, rtol=1e-4, atol=1e-4)
        start += length


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unmask", ["all", "0011"])
def test_folded_states_are_those_of_base_and_adapter(make_base, family, unmask):
    backbone = adapted(make_base(family), unmask)
    ids, mask = batch(padded=True)
    real = mask.bool()
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    expected = backbone.states(ids, mask)
    folded = Folded(backbone).backbone
    torch.testing.assert_close(folded.states(ids, mask)[real], expected[real], rtol=1e-3, atol=1e-4)
    assert not folded.adapted and backbone.adapted
    for name, value in backbone.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(backbone.states(ids, mask)[real], expected[real])
    plain = load(make_base(family), unmask).states(ids, mask)
    assert not torch.allclose(plain[real], expected[real], atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mix_of_layers_folds_too(make_base, family):
    """Whichever of the two runs first."""
    ids, mask = batch(padded=False)
    for source_first in (False, True):
        backbone = adapted(make_base(family), scalar_mix="from:1")
        expected = backbone.states(ids, mask) if source_first else None
        folded = Folded(backbone).backbone
        found = folded.states(ids, mask)
        if expected is None:
            expected = backbone.states(ids, mask)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(folded.states(ids, mask), found)
        torch.testing.assert_close(backbone.states(ids, mask), expected)


@pytest.mark.parametrize("extra", [{"use_dora": True}, {"use_rslora": True}, {"target_modules": ["q_proj"]}])
def test_variants_of_lora_fold_too(make_base, extra):
    backbone = adapted(make_base("llama"), **extra)
    ids, mask = batch(padded=False)
    states = Folded(backbone).backbone.states(ids, mask)
    torch.testing.assert_close(states, backbone.states(ids, mask), rtol=1e-3, atol=1e-4)


def test_what_the_adapter_leaves_alone_is_shared(make_base):
    backbone = adapted(make_base("llama"), target_modules=["q_proj"])
    folded = Folded(backbone).backbone
    theirs = dict(folded.causal_lm.named_parameters())
    for name, value in backbone.causal_lm.named_parameters():
        if "q_proj" not in name:
            assert theirs[name] is value, name
    assert theirs["model.layers.0.self_attn.q_proj.weight"].requires_grad is False


def test_a_folded_backbone_fits_until_something_changes(make_base):
    backbone = adapted(make_base("llama"))
    assert Folded(backbone).fits(backbone)
    folded = Folded(backbone)
    # Optimizers and averages write to `.data`, which does not change a tensor's version.
    next(iter(backbone.adapter_parameters().values())).data.mul_(1.01)
    assert not folded.fits(backbone)
    folded = Folded(backbone)
    backbone.causal_lm.model.layers[0].told_otherwise = True
    assert not folded.fits(backbone)
    assert not Folded(backbone).fits(replace(backbone))


def test_hooks_that_come_later_are_followed(make_base):
    backbone = adapted(make_base("llama"))
    folded, seen = Folded(backbone), []
    backbone.causal_lm.model.layers[0].register_forward_hook(lambda *given: seen.append(1))
    folded.backbone.states(*batch(padded=False))
    assert seen == [1]


def test_bfloat16_is_rounded_once(make_base):
    backbone = adapted(make_base("llama"), dtype="bfloat16")
    layer = backbone.causal_lm.model.layers[0].mlp.up_proj
    exact = layer.base_layer.weight.float() + layer.get_delta_weight("default").float()
    folded = Folded(backbone).backbone.causal_lm.model.layers[0].mlp.up_proj
    assert torch.equal(folded.weight, exact.bfloat16())


def test_when_an_adapter_is_folded(make_base, monkeypatch):
    backbone = adapted(make_base("llama", seed=7))
    assert may_fold(backbone, "auto") and may_fold(backbone, "always") and not may_fold(backbone, "never")
    other = load(make_base("llama", seed=7))
    assert not may_fold(other, "always")
    assert not may_fold(backbone, "auto") and may_fold(backbone, "always")
    del other
    gc.collect()
    assert may_fold(backbone, "auto")
    with backbone.model.disable_adapter():
        assert not may_fold(backbone, "always")
    monkeypatch.setattr("spacy_lsbillm.backbone.fold.free_memory", lambda device: 1000)
    assert not room_to_fold(backbone, "auto") and room_to_fold(backbone, "always")
    monkeypatch.undo()
    quantised = load(make_base("llama"), lora=LoraSettings(), quantization="nf4")
    assert not may_fold(quantised, "auto")
    assert quantised.device == CPU


@pytest.mark.parametrize("limit", ["max", "1000000"])
def test_the_limit_of_a_container_counts(make_base, tmp_path, monkeypatch, limit):
    for name, content in (("max", limit), ("current", "999000"), ("stat", "anon 5\ninactive_file 500")):
        (tmp_path / f"memory.{name}").write_text(content, encoding="ascii")
    none = tmp_path / "none"
    files = ((tmp_path / "memory.max", tmp_path / "memory.current"), (none, none))
    monkeypatch.setattr("spacy_lsbillm.backbone.free_memory.CGROUP_FILES", files)
    assert room_to_fold(adapted(make_base("llama", seed=8)), "auto") == (limit == "max")


@pytest.mark.parametrize(
    ("setting", "quantization", "told"),
    [("yes", None, r"fold_adapter = 'yes'.*'auto', 'always', 'never'"), ("always", "nf4", "not allowed with quant")],
)
def test_settings_that_are_refused(setting, quantization, told):
    with pytest.raises(SettingError, match=told):
        check_fold(setting, quantization)
