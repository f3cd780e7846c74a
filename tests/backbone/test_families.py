"""The acceptance test of unmasking: what a position can see, for each family, attention and kind of batch.

It needs no spaCy, and runs on transformers 4.53 and 5.x alike.
"""

import json
import os
import re
from functools import cache

import pytest
import torch
from backbones import PROVED, batch, load
from backbones import family as proved
from places import REPOSITORY
from tiny import FAMILIES, WINDOWED
from transformers import AutoConfig, AutoModelForCausalLM

from scripts import prove_families
from scripts.prove_families import USUAL, page, result_of
from spacy_lsbillm.backbone import LoraSettings
from spacy_lsbillm.backbone import proved as proved_families
from spacy_lsbillm.backbone import unmask as unmasking
from spacy_lsbillm.backbone.families import decoder_of, layers_of
from spacy_lsbillm.backbone.proof import prove
from spacy_lsbillm.backbone.proved import minor_version, shipped
from spacy_lsbillm.errors import BaseError

TABLE = REPOSITORY / "docs" / "families.md"
MASKS = ["none", "all", "0011", "1000", "layers:2"]
CASES = [(family, attention) for family in FAMILIES for attention in proved(family).attentions]
cases = pytest.mark.parametrize(("family", "attention"), CASES)
masks = pytest.mark.parametrize("unmask", MASKS)


@pytest.fixture(scope="module")
def loaded(make_base):
    """loaded(family, attention, unmask): a backbone with a new adapter, loaded once for all masks."""

    @cache
    def load_once(family, attention):
        return load(make_base(family), "none", attention, LoraSettings(dropout=0.0))

    def under(family, attention, unmask):
        backbone = load_once(family, attention)
        backbone.use_mask(unmask)
        return backbone

    return under


@pytest.fixture(scope="module")
def states(loaded):
    """states(family, attention, unmask, padded): the batch's states in an untrained backbone; computed once."""

    @cache
    def compute(family, attention, unmask, padded):
        return predicted(loaded(family, attention, unmask), *batch(padded))

    return compute


@torch.no_grad()
def predicted(backbone, ids, mask):
    backbone.model.eval()
    return backbone.states(ids, mask)


@cases
@masks
@pytest.mark.parametrize("padded", [False, True])
def test_the_last_piece_reaches_the_first_if_and_only_if_some_layer_is_unmasked(
    loaded, states, family, attention, unmask, padded
):
    backbone = loaded(family, attention, unmask)
    ids, mask = batch(padded)
    changed = ids.clone()
    changed[0, 11] += 1
    if padded:
        changed[1, 6] += 1
    pairs = [(states(family, attention, unmask, padded), predicted(backbone, changed, mask))]
    backbone.model.train()
    pairs.append((backbone.states(ids, mask), backbone.states(changed, mask)))
    for before, after in pairs:
        for row in (0, 1) if padded else (0,):
            assert bool((before[row, 0] != after[row, 0]).any()) == (unmask != "none")


@cases
@masks
def test_what_stands_in_padding_changes_nothing(loaded, states, family, attention, unmask):
    backbone = loaded(family, attention, unmask)
    ids, mask = batch(padded=True)
    real = mask.bool()
    changed = torch.where(real, ids, 5)
    # Experts process all pieces that are sent to them at once, including padding, which may change the last digits.
    tolerance = 1e-5 if "experts" in str(backbone.model) else 0
    expected, found = states(family, attention, unmask, True), predicted(backbone, changed, mask)
    torch.testing.assert_close(found[real], expected[real], rtol=0, atol=tolerance)


@cases
@masks
def test_states_do_not_depend_on_the_batch(loaded, states, family, attention, unmask):
    together = states(family, attention, unmask, True)
    backbone = loaded(family, attention, unmask)
    ids, mask = batch(padded=True)
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = predicted(backbone, ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1, :length], alone, rtol=1e-4, atol=1e-4)


@cases
@pytest.mark.parametrize("padded", [False, True])
def test_without_unmasking_the_states_are_those_of_the_untouched_model(
    make_base, loaded, states, family, attention, padded
):
    untouched = AutoModelForCausalLM.from_pretrained(make_base(family), attn_implementation=attention).eval()
    ids, mask = batch(padded)
    expected = untouched.get_submodule(proved(family).decoder)(input_ids=ids, attention_mask=mask).last_hidden_state
    found = states(family, attention, "none", padded)
    assert found.shape[-1] == loaded(family, attention, "none").width
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("family", "attention"), [case for case in CASES if case[0] in WINDOWED])
@pytest.mark.parametrize("padded", [False, True])
def test_an_unmasked_sliding_window_reaches_as_far_right_as_left(make_base, family, attention, padded):
    """Only the first layer, with a window of 4: three pieces to each side."""
    settings = {"sliding_window": 4}
    if family == "qwen2":
        settings["max_window_layers"] = 0
    backbone, reach = load(make_base(family, **settings), "none", attention, depth=1), {}
    for unmask in ("all", "none"):
        backbone.use_mask(unmask)
        ids, mask = batch(padded=False)
        if padded:
            ids, mask = torch.cat([ids, ids[:, :4]], 1), torch.cat([mask, 0 * mask[:, :4]], 1)
        changed = ids.clone()
        changed[0, 6] += 1
        moved = (backbone.states(ids, mask) != backbone.states(changed, mask))[0, :12].any(-1)
        reach[unmask] = moved.nonzero().flatten().tolist()
    assert reach == {"all": [3, 4, 5, 6, 7, 8, 9], "none": [6, 7, 8, 9]}


@cases
def test_causal_layers_below_unmasked_ones_are_not_touched(loaded, family, attention):
    """With layers 2 and 3 unmasked, the output of layer 1 must be unchanged."""
    seen = []
    for unmask in ("none", "0011"):
        backbone = loaded(family, attention, unmask)
        layer = layers_of(decoder_of(backbone.causal_lm, backbone.family), backbone.family)[1]
        hook = layer.register_forward_hook(lambda module, args, output: seen.append(output))
        predicted(backbone, *batch(padded=True))
        hook.remove()
    one, other = (value[0] if isinstance(value, tuple) else value for value in seen)
    assert torch.equal(one, other)


@cases
def test_a_mask_used_for_a_while_computes_what_a_backbone_that_was_loaded_with_it_does(make_base, family, attention):
    switched = load(make_base(family), "none", attention)
    ids, mask = batch(padded=True)
    real = mask.bool()
    expected = {None: switched.states(ids, mask)}
    for unmask in ("all", "0011"):
        expected[unmask] = load(make_base(family), unmask, attention).states(ids, mask)
    for unmask in ("all", "0011", None):
        switched.use_mask(unmask)
        torch.testing.assert_close(switched.states(ids, mask)[real], expected[unmask][real], rtol=0, atol=1e-6)
    # A copy over the same weights has its own mask.
    twin = switched.twin()
    before = switched.states(ids, mask)
    twin.use_mask("all")
    assert not torch.equal(twin.states(ids, mask), before)
    assert torch.equal(switched.states(ids, mask), before)


def test_an_attention_that_leaves_something_out_is_refused(make_base):
    with pytest.raises(BaseError, match=r"sdpa.*'auto', 'eager'"):
        load(make_base("gemma2"), attention="sdpa")


def test_alibi_positions_are_refused(make_base):
    with pytest.raises(BaseError, match="ALiBi"):
        load(make_base("falcon", alibi=True))


WORKING = sorted(name for name, found in PROVED.items() if "family" in found and " " not in name)
# One type per reason.
REFUSED = ["bart", "bert", "bloom", "jamba", "mamba", "mpt"]


@pytest.mark.parametrize("model_type", WORKING)
def test_what_was_proved_once_is_proved_again(model_type):
    """With other versions of transformers, a family may work better, for example with one more attention."""
    _, found = result_of(model_type, USUAL.get(model_type, {}))
    assert "family" in found, found
    if minor_version() in shipped():
        assert found == PROVED[model_type]


@pytest.mark.parametrize("model_type", REFUSED)
def test_what_cannot_be_unmasked_is_refused_with_what_was_measured(model_type):
    _, found = result_of(model_type, {})
    assert found == PROVED[model_type]
    assert "refused" in found


def test_enough_families_are_proved():
    assert len(WORKING) >= {"4.53": 30}.get(minor_version(), 45)


def config_of(family):
    return AutoConfig.for_model(family)


def test_a_hook_that_does_nothing_fails_the_proof(monkeypatch):
    monkeypatch.setattr(unmasking, "_both_ways", lambda mask, *rest: mask)
    proof = prove(config_of("llama"), "x")
    assert proof.family is None
    assert "layer 0 unmasked, position 0 moves when the last piece changes: moved by 0 " in proof.reason


def test_a_hook_that_lets_padding_in_fails_the_proof(monkeypatch):
    correct = unmasking._both_ways

    def everything(mask, *rest):
        return correct(mask, *rest) if mask is None else torch.ones_like(mask)

    monkeypatch.setattr(unmasking, "_both_ways", everything)
    proof = prove(config_of("llama"), "x")
    assert proof.family is None
    assert "padding" in proof.reason


def test_a_hook_that_opens_windows_altogether_fails_the_proof(monkeypatch):
    correct = unmasking._both_ways

    def all_that_is_real(mask, *rest):
        if mask is None:
            return correct(mask, *rest)
        real = (mask if mask.dtype == torch.bool else mask == 0).diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
        both = real.expand_as(mask)
        return both if mask.dtype == torch.bool else torch.zeros_like(mask).masked_fill(~both, -1e9)

    monkeypatch.setattr(unmasking, "_both_ways", all_that_is_real)
    proof = prove(config_of("mistral"), "x")
    assert proof.family is None
    assert "as far to the right as to the left: a change at position 6 moves [0, 1, 2" in proof.reason


def test_a_base_that_was_never_tried_is_tried_before_its_weights_are_read(make_base, tmp_path, monkeypatch):
    monkeypatch.setattr(proved_families, "shipped", dict)
    assert load(make_base("gemma2"), "0011").family == proved("gemma2")

    def fail(*args, **kwargs):
        raise AssertionError("the weights were read before the base was tried")

    config = AutoConfig.for_model("bloom", hidden_size=32, n_layer=2, n_head=4, vocab_size=400)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(BaseError, match=r"\(bloom\).*layer 0 unmasked.*ALiBi.*check-base"):
        load(tmp_path)


def test_a_base_that_another_tool_has_unmasked_obeys_the_plan(make_base):
    """transformers 5 unmasks every layer if the config says so."""
    plain, said = make_base("llama"), make_base("llama", is_causal=False)
    ids, mask = batch(padded=True)
    for notation in ("none", "0011", "all"):
        one, other = load(plain, notation), load(said, notation)
        torch.testing.assert_close(one.states(ids, mask), other.states(ids, mask), rtol=0, atol=0)


@pytest.mark.parametrize(("model_type", "said"), [("foo", "but no entry"), ("bloom", "but .*ALiBi")])
def test_a_family_without_a_proof_says_what_to_run(model_type, said):
    with pytest.raises(LookupError, match=rf"no proof of '{model_type}', {said}.*prove_families\.py {model_type}"):
        proved(model_type)


def test_types_are_not_proved_alone_on_a_version_that_is_not_listed(tmp_path, monkeypatch):
    result = tmp_path / "proved.json"
    result.write_text('{"4.0": {}, "5.0": {}}')
    monkeypatch.setattr(prove_families, "RESULT", result)
    monkeypatch.setattr(prove_families, "PAGE", tmp_path / "families.md")
    with pytest.raises(SystemExit, match=rf"has transformers 4\.0, 5\.0, not {re.escape(minor_version())}"):
        prove_families.main(["llama"])
    assert json.loads(result.read_text()) == {"4.0": {}, "5.0": {}}
    assert not (tmp_path / "families.md").exists()


def test_the_table_of_families_is_current():
    """UPDATE_DOCS=1 rewrites it."""
    if os.environ.get("UPDATE_DOCS"):
        TABLE.write_text(page(shipped()), encoding="utf8")
    assert TABLE.read_text(encoding="utf8") == page(shipped())
