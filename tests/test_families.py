"""The acceptance test of unmasking: what a position can see, for each family, attention and kind of batch.

It needs no spaCy, and runs on transformers 4.53 and 5.x alike.
"""

import os
from functools import cache
from pathlib import Path

import pytest
import torch
from backbones import batch, load
from tiny import FAMILIES, LAYERS, WINDOWED
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from spacy_lsbillm.backbone import LoraSettings
from spacy_lsbillm.backbone.families import FAMILIES as KNOWN
from spacy_lsbillm.backbone.families import decoder_of, layers_of
from spacy_lsbillm.errors import BaseError

TABLE = Path(__file__).resolve().parent.parent / "docs" / "families.md"
MASKS = ["none", "all", "0011", "1000", "layers:2"]
CASES = [(family, attention) for family in FAMILIES for attention in KNOWN[family].attentions]
cases = pytest.mark.parametrize(("family", "attention"), CASES)
masks = pytest.mark.parametrize("unmask", MASKS)


@pytest.fixture(scope="module")
def loaded(make_base):
    """loaded(family, attention, unmask): a backbone with a fresh adapter, loaded once."""
    return cache(
        lambda family, attention, unmask: load(make_base(family), unmask, attention, LoraSettings(dropout=0.0))
    )


def test_every_known_family_is_tested():
    assert set(FAMILIES) == set(KNOWN)


@cases
@masks
@pytest.mark.parametrize("padded", [False, True])
def test_the_last_piece_reaches_the_first_if_and_only_if_some_layer_is_unmasked(
    loaded, family, attention, unmask, padded
):
    backbone = loaded(family, attention, unmask)
    ids, mask = batch(padded)
    changed = ids.clone()
    changed[0, 11] += 1
    if padded:
        changed[1, 6] += 1
    for training in (False, True):
        backbone.model.train(training)
        before, after = backbone.states(ids, mask), backbone.states(changed, mask)
        for row in (0, 1) if padded else (0,):
            assert bool((before[row, 0] != after[row, 0]).any()) == backbone.plan.any


@cases
@masks
def test_what_stands_in_padding_changes_nothing(loaded, family, attention, unmask):
    backbone = loaded(family, attention, unmask)
    backbone.model.eval()
    ids, mask = batch(padded=True)
    real = mask.bool()
    changed = torch.where(real, ids, 5)
    assert torch.equal(backbone.states(ids, mask)[real], backbone.states(changed, mask)[real])


@cases
@masks
def test_states_do_not_depend_on_the_batch(loaded, family, attention, unmask):
    backbone = loaded(family, attention, unmask)
    backbone.model.eval()
    ids, mask = batch(padded=True)
    together = backbone.states(ids, mask)
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = backbone.states(ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1, :length], alone, rtol=1e-4, atol=1e-4)


@cases
@pytest.mark.parametrize("padded", [False, True])
def test_without_unmasking_the_states_are_those_of_the_untouched_model(make_base, loaded, family, attention, padded):
    untouched = AutoModelForCausalLM.from_pretrained(make_base(family), attn_implementation=attention).eval()
    ids, mask = batch(padded)
    expected = untouched.get_submodule(KNOWN[family].decoder)(input_ids=ids, attention_mask=mask).last_hidden_state
    backbone = loaded(family, attention, "none")
    backbone.model.eval()
    states = backbone.states(ids, mask)
    assert states.shape[-1] == backbone.width
    torch.testing.assert_close(states[mask.bool()], expected[mask.bool()], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("family", "attention"), [case for case in CASES if case[0] in WINDOWED])
@pytest.mark.parametrize("padded", [False, True])
def test_an_unmasked_sliding_window_reaches_as_far_right_as_left(make_base, family, attention, padded):
    """The first layer alone, with a window of 4: three pieces to each side."""
    settings = {"sliding_window": 4}
    if family == "qwen2":
        settings["max_window_layers"] = 0
    reach = {}
    for unmask in ("all", "none"):
        backbone = load(make_base(family, **settings), unmask, attention, depth=1)
        ids, mask = batch(padded=False)
        if padded:
            ids, mask = torch.cat([ids, ids[:, :4]], 1), torch.cat([mask, 0 * mask[:, :4]], 1)
        changed = ids.clone()
        changed[0, 6] += 1
        moved = (backbone.states(ids, mask) != backbone.states(changed, mask))[0, :12].any(-1)
        reach[unmask] = moved.nonzero().flatten().tolist()
    assert reach == {"all": [3, 4, 5, 6, 7, 8, 9], "none": [6, 7, 8, 9]}


@cases
def test_causal_layers_below_unmasked_ones_are_not_touched(make_base, family, attention):
    """With layers 2 and 3 unmasked, layer 1 must give what it gives untouched."""
    ids, mask = batch(padded=True)
    seen = {}
    for name, unmask in (("untouched", "none"), ("unmasked above", "0011")):
        backbone = load(make_base(family), unmask, attention)
        layer = layers_of(decoder_of(backbone.causal_lm, KNOWN[family]), KNOWN[family])[1]
        layer.register_forward_hook(lambda module, args, output, name=name: seen.__setitem__(name, output))
        backbone.states(ids, mask)
    one, other = (value[0] if isinstance(value, tuple) else value for value in seen.values())
    assert torch.equal(one, other)


@cases
def test_a_mask_used_for_a_while_computes_what_a_backbone_that_was_loaded_with_it_does(
    make_base, loaded, family, attention
):
    switched = load(make_base(family), "none", attention)
    ids, mask = batch(padded=True)
    for unmask in ("all", "0011", "layers:2", "none", "1000", None):
        switched.use_mask(unmask)
        fresh = loaded(family, attention, unmask or "none")
        fresh.model.eval()
        real = mask.bool()
        torch.testing.assert_close(switched.states(ids, mask)[real], fresh.states(ids, mask)[real], rtol=0, atol=1e-6)
    # A copy over the same weights has a mask of its own.
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


def test_the_table_of_families_is_current():
    """UPDATE_DOCS=1 writes it anew. Newer versions of transformers have more families to refuse."""
    text = table()
    if os.environ.get("UPDATE_DOCS"):
        TABLE.write_text(text, encoding="utf8")
    stated = TABLE.read_text(encoding="utf8")
    worked = [line for line in text.splitlines() if line.startswith("| `")]
    assert [line for line in stated.splitlines() if line.startswith("| `")] == worked


def table() -> str:
    rows = "\n".join(
        f"| `{family}` | {', '.join(KNOWN[family].attentions)} | {'yes' if family in WINDOWED else ''} |"
        for family in sorted(KNOWN)
    )
    refused = ", ".join(sorted(f"`{name}`" for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in KNOWN))
    return f"""# Families

Written by `UPDATE_DOCS=1 python -m pytest tests/test_families.py`; each family named in the table passes the checks
in that file, for each attention named, on a small model of {LAYERS} layers with random weights.

| `model_type` | attention | with sliding windows |
|---|---|---|
{rows}

- SDPA leaves out the cap that Gemma 2 has on its attention logits, so that only `"eager"` is right there.
- `falcon` with ALiBi positions is refused: they are defined to the left alone.
- GPT-2 hides the future a second time, in a tensor of each layer's own; that is opened, too.

## Refused

Any other `model_type` is refused by name. Some of these might work and have not been tried; models with state-space or
linear-attention layers, with attention sinks or with ALiBi positions cannot be unmasked by a change of the mask. Of the
causal language models that transformers offers these are refused:

{refused}
"""
