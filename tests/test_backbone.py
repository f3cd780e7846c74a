"""The acceptance test of unmasking: what a position can see, for each family, attention and kind of batch."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from spacy_lsbillm.backbone import BaseSettings, LoraSettings, load_backbone

CPU = torch.device("cpu")
MASKS = ["none", "all", "0011", "1000", "layers:2"]
families = pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
attentions = pytest.mark.parametrize("attention", ["sdpa", "eager"])


def load(folder, unmask, attention="sdpa", lora=None, **settings):
    return load_backbone(BaseSettings(str(folder), attention=attention, **settings), unmask, device=CPU, lora=lora)


def batch(padded: bool):
    """Three rows of 12 pieces; with padding, the second has 7 and the third 1."""
    ids = torch.randint(2, 300, (3, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    if padded:
        mask[1, 7:] = 0
        mask[2, 1:] = 0
    return ids, mask


@families
@attentions
@pytest.mark.parametrize("unmask", MASKS)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_last_piece_reaches_the_first_if_and_only_if_some_layer_is_unmasked(
    make_base, family, attention, unmask, padded, training
):
    backbone = load(make_base(family), unmask, attention, LoraSettings(dropout=0.0))
    backbone.model.train(training)
    ids, mask = batch(padded)
    changed = ids.clone()
    changed[0, 11] += 1
    if padded:
        changed[1, 6] += 1
    before, after = backbone.states(ids, mask), backbone.states(changed, mask)
    for row in (0, 1) if padded else (0,):
        assert bool((before[row, 0] != after[row, 0]).any()) == backbone.plan.any


@families
@attentions
@pytest.mark.parametrize("unmask", MASKS)
def test_what_stands_in_padding_changes_nothing(make_base, family, attention, unmask):
    backbone = load(make_base(family), unmask, attention)
    ids, mask = batch(padded=True)
    changed = torch.where(mask.bool(), ids, 5)
    real = mask.bool()
    assert torch.equal(backbone.states(ids, mask)[real], backbone.states(changed, mask)[real])


@families
@attentions
@pytest.mark.parametrize("unmask", MASKS)
def test_states_do_not_depend_on_the_batch(make_base, family, attention, unmask):
    backbone = load(make_base(family), unmask, attention)
    ids, mask = batch(padded=True)
    together = backbone.states(ids, mask)
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = backbone.states(ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1, :length], alone, rtol=1e-4, atol=1e-4)


@families
@attentions
@pytest.mark.parametrize("padded", [False, True])
def test_without_unmasking_the_states_are_those_of_the_untouched_model(make_base, family, attention, padded):
    folder = make_base(family)
    untouched = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention).eval()
    ids, mask = batch(padded)
    expected = untouched.model(input_ids=ids, attention_mask=mask).last_hidden_state
    states = load(folder, "none", attention, LoraSettings()).states(ids, mask)
    torch.testing.assert_close(states[mask.bool()], expected[mask.bool()], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
@attentions
@pytest.mark.parametrize("padded", [False, True])
def test_an_unmasked_sliding_window_reaches_as_far_right_as_left(make_base, family, attention, padded):
    backbone = load(make_base(family, sliding_window=4, max_window_layers=0), "layers:0", attention)
    backbone.model.model.layers = backbone.model.model.layers[:1]
    ids, mask = batch(padded=False)
    if padded:
        ids, mask = torch.cat([ids, ids[:, :4]], 1), torch.cat([mask, 0 * mask[:, :4]], 1)
    before = backbone.states(ids, mask)
    changed = ids.clone()
    changed[0, 6] += 1
    moved = (before != backbone.states(changed, mask))[0, :12].any(-1)
    assert moved.nonzero().flatten().tolist() == [3, 4, 5, 6, 7, 8, 9]


@families
def test_causal_layers_below_unmasked_ones_keep_the_window_of_the_model(make_base, family):
    """Layer 0 alone is looked at: with layers 2 and 3 unmasked it must give what it gives untouched."""
    folder = make_base(family)
    ids, mask = batch(padded=True)
    seen = {}
    for name, unmask in (("untouched", "none"), ("unmasked above", "0011")):
        backbone = load(folder, unmask)
        hook = lambda module, args, output, name=name: seen.__setitem__(name, output[0])  # noqa: E731
        backbone.model.model.layers[1].register_forward_hook(hook)
        backbone.states(ids, mask)
    assert torch.equal(seen["untouched"], seen["unmasked above"])


@families
def test_gradient_checkpointing_gives_the_same_gradients(make_base, family):
    ids, mask = batch(padded=True)
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        backbone = load(make_base(family), "all", lora=LoraSettings(dropout=0.0))
        backbone.model.train()
        if checkpointing:
            backbone.model.enable_input_require_grads()
            backbone.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        backbone.states(ids, mask)[mask.bool()].square().sum().backward()
        gradients.append([p.grad for p in backbone.trainable().values()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


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
