"""Gradual unmasking: over `unmask_warmup` updates, layers come to see their right side."""

import math
from functools import cache

import numpy as np
import pytest
import spacy
import torch
from backbones import batch, load
from backbones import family as proved
from hypothesis import given
from hypothesis import strategies as st
from pipelines import backbone, build, examples, same, train, trained, vectors
from thinc.api import Adam, ConfigValidationError, fix_random_seed
from tiny import FAMILIES, TEXTS

from spacy_lsbillm.backbone.unmask import weighted_mask
from spacy_lsbillm.errors import SettingError
from spacy_lsbillm.layers import backbone_shim

CASES = [(family, attention) for family in FAMILIES for attention in proved(family).attentions]
cases = pytest.mark.parametrize(("family", "attention"), CASES)
MASK = "0110"


@pytest.fixture(scope="module")
def loaded(make_base):
    """loaded(family, attention, unmask): a frozen backbone, loaded once."""
    return cache(lambda family, attention, unmask: load(make_base(family), unmask, attention))


def states(one, weight, padded):
    ids, mask = batch(padded)
    one.model.eval()
    one.weigh_right(weight)
    with torch.no_grad():
        found = one.states(ids, mask)[mask.bool()]
    one.weigh_right(1.0)
    return found


def shim_of(nlp):
    return backbone_shim(nlp.get_pipe("transformer").model)


# One mask


@given(st.integers(1, 6), st.integers(0, 5), st.floats(1e-6, 0.999), st.booleans(), st.integers(0, 2**32))
def test_what_is_right_counts_so_many_times_as_much(length, padding, weight, floating, seed):
    generator = torch.Generator().manual_seed(seed)
    size = length + padding
    causal = torch.ones(size, size, dtype=torch.bool).tril()
    causal[:, length:] = False
    mask = causal[None, None]
    if floating:
        mask = torch.zeros(1, 1, size, size).masked_fill(~mask, torch.finfo(torch.float32).min)
    scores = torch.randn(size, size, generator=generator)
    found = (scores + weighted_mask(mask, weight, torch.float32)[0, 0])[:length].softmax(dim=-1)
    factors = torch.ones(size, size).tril() + weight * torch.ones(size, size).triu(1)
    factors[:, length:] = 0
    wanted = scores.exp() * factors
    torch.testing.assert_close(found, (wanted / wanted.sum(dim=-1, keepdim=True))[:length], rtol=1e-4, atol=1e-6)


# A backbone


@cases
@pytest.mark.parametrize("padded", [False, True])
def test_it_goes_from_causal_to_plain(loaded, family, attention, padded):
    some, none = loaded(family, attention, MASK), loaded(family, attention, "none")
    causal, plain = states(none, 1.0, padded), states(some, 1.0, padded)
    assert torch.equal(states(some, 0.0, padded), causal)
    scale = float(plain.abs().max())
    torch.testing.assert_close(states(some, 1 - 1e-7, padded), plain, rtol=0, atol=1e-4 * scale)
    torch.testing.assert_close(states(some, 1e-30, padded), causal, rtol=0, atol=1e-4 * scale)
    # In between, states differ from both, and the first piece sees the last.
    half = states(some, 0.5, padded)
    assert float((half - causal).abs().max()) > 1e-3 * scale and float((half - plain).abs().max()) > 1e-3 * scale
    # A causal plan has nothing to weight.
    assert torch.equal(states(none, 0.5, padded), causal)


@pytest.mark.parametrize("family", [family for family in FAMILIES if len(proved(family).attentions) > 1])
def test_attentions_agree(loaded, family):
    one, other = (states(loaded(family, attention, "all"), 0.3, True) for attention in ("sdpa", "eager"))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "mistral"])
def test_packed_is_padded(loaded, family):
    """Several texts in a row, told apart by their positions."""
    one = loaded(family, "sdpa", "all")
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
    places = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4]])
    one.model.eval()
    one.weigh_right(0.3)
    with torch.no_grad():
        together = one.states(ids, torch.ones_like(ids), places)[0]
        alone = [one.states(part, torch.ones_like(part))[0] for part in (ids[:, :3], ids[:, 3:])]
    one.weigh_right(1.0)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


# In training


def test_the_weight_rises_with_updates_of_the_adapter(make_base):
    nlp = build(make_base(), unmask_warmup=4, heads_first=2)
    data = examples(nlp)
    nlp.initialize(lambda: data)
    shim, seen = shim_of(nlp), []
    used = shim.backbone.weigh_right
    object.__setattr__(shim.backbone, "weigh_right", lambda weight: (seen.append(weight), used(weight))[1])
    smallest = []
    for _ in range(8):
        seen.clear()
        # The gradients of two halves, then one optimizer step.
        for half in (data[:2], data[2:]):
            nlp.update(half, sgd=False)
        smallest.append(min(seen, default=1.0))
        nlp.get_pipe("transformer").finish_update(Adam(0.002))
    # While only the heads are trained, states are predictions, which may come from a folded copy.
    assert smallest == [1.0, 1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_the_first_update_is_causal_and_predictions_never_are(make_base):
    """The first step changes the adapter as with a causal mask.

    Predictions before, between and after updates are those of the plain mask.
    """

    def after_one(**settings):
        spacy.util.fix_random_seed(0)
        nlp = build(make_base(), lora={"r": 4, "dropout": 0.0}, **settings)
        train(nlp, steps=1)
        return nlp

    gradual, causal, plain = after_one(unmask_warmup=5), after_one(unmask="none"), after_one()
    weights = [
        [value.detach() for value in backbone(nlp).adapter_parameters().values()] for nlp in (gradual, causal, plain)
    ]
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights[0], weights[2], strict=True))
    found = vectors(gradual)
    changed = vectors(gradual, [text.rsplit(" ", 1)[0] + " zagreb" for text in TEXTS])
    assert all((a[0] != b[0]).any() for a, b in zip(found, changed, strict=True))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_gradients_are_finite_at_any_weight(make_base, checkpointing, attention):
    nlp = build(make_base(), unmask_warmup=3, gradient_checkpointing=checkpointing, attention=attention)
    losses = [train(nlp, steps=1)["ner"]]
    optimizer, data = Adam(0.01), examples(nlp)
    for step in range(8):
        # A prediction during an update must not affect what is recomputed in the backward pass.
        losses.append(nlp.update(data, sgd=optimizer, losses={}, annotates=["transformer"] if step % 2 else [])["ner"])
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert all(np.isfinite(found).all() for found in vectors(nlp))


def test_checkpointing_changes_nothing(make_base):
    def weights(checkpointing):
        nlp = trained(make_base(), unmask_warmup=4, gradient_checkpointing=checkpointing, lora={"r": 4, "dropout": 0.0})
        return [value.detach().numpy() for value in backbone(nlp).adapter_parameters().values()]

    assert same(weights(True), weights(False))


def test_afterwards_and_with_0_it_is_as_if_it_were_not_there(make_base, tmp_path):
    nlp = trained(make_base(), steps=3, unmask_warmup=2)
    found = vectors(nlp)
    nlp.to_disk(tmp_path / "p")
    again = spacy.load(tmp_path / "p")
    assert same(vectors(again), found)
    # A trained pipeline continues without warm-up, because its adapter already knows the whole text.
    assert shim_of(again).right_weight == 1.0
    one, other = trained(make_base(), unmask_warmup=0), trained(make_base())
    assert same(vectors(one), vectors(other), tolerance=0)


def test_it_learns(make_base):
    # From some starting weights of the heads 40 updates are too few, here as without a warm-up.
    fix_random_seed(0)
    nlp = build(make_base(), unmask_warmup=20)
    first = train(nlp, steps=1)
    losses = train(nlp, steps=40, optimizer=Adam(0.01))
    assert losses["ner"] < 0.2 * first["ner"]


def test_with_copies_before_it(make_base):
    """In a row of copies, the right side of a piece includes the copies after it."""
    losses = train(build(make_base(), unmask_warmup=2, repeat=1), steps=4)
    assert math.isfinite(losses["ner"])


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unmask_warmup": -1}, "unmask_warmup = -1 is not allowed: it must be a number of updates, 0 or above"),
        ({"unmask_warmup": 1.5}, "unmask_warmup"),
        ({"unmask_warmup": "2"}, "unmask_warmup"),
        ({"unmask_warmup": 10, "unmask": "none"}, "unmask_warmup = 10 with unmask = 'none': there is no layer"),
        ({"unmask_warmup": 10, "unmask": "bits:00"}, "unmask_warmup = 10 with unmask = 'bits:00'"),
        ({"unmask_warmup": 10, "unmask": "0000"}, "unmask_warmup = 10 with unmask = '0000'"),
    ],
)
def test_bad_settings(tmp_path, settings, message):
    # Refused before the base is looked for. Values of another type are refused by the config system.
    with pytest.raises((SettingError, ConfigValidationError), match=message):
        build(tmp_path / "nothing", **settings)
