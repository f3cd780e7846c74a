"""Pipelines that share the weights of a base."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
import spacy
import torch
from backbones import batch, load
from pipelines import backbone, build, examples, same, train, trained, vectors
from spacy.util import fix_random_seed
from thinc.api import Adam
from tiny import TEXTS

from spacy_lsbillm.backbone import LoraSettings
from spacy_lsbillm.backbone.adapter import write_adapter
from spacy_lsbillm.backbone.base import BaseSettings
from spacy_lsbillm.backbone.sharing import _live


def frozen(holder):
    """The memory addresses of the frozen tensors, by name."""
    model = holder if isinstance(holder, torch.nn.Module) else holder.causal_lm
    return {
        name.replace(".base_layer", ""): value.data_ptr()
        for name, value in model.named_parameters()
        if not value.requires_grad
    }


def live():
    gc.collect()
    return sum(len(bases) for bases in _live.values())


@pytest.mark.parametrize("quantization", [None, "nf4", "int8"])
def test_the_same_base_is_in_memory_once(make_base, quantization):
    folder = make_base("llama")
    one = load(folder, quantization=quantization, lora=LoraSettings())
    one.states(*batch(padded=True))
    other = load(folder, "none", quantization=quantization, lora=LoraSettings(r=4))
    other.states(*batch(padded=True))
    assert frozen(one) == frozen(other)
    alone = load(folder, "none", quantization=quantization)
    assert torch.equal(alone.states(*batch(padded=True)), other.states(*batch(padded=True)))
    assert not torch.equal(one.states(*batch(padded=True)), other.states(*batch(padded=True)))


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_twin_shares_the_base_also_after_use(make_base, quantization):
    one = load(make_base("llama"), quantization=quantization, lora=LoraSettings())
    states = one.states(*batch(padded=True))
    other = one.twin()
    one.model.eval(), other.model.eval()
    assert torch.equal(other.states(*batch(padded=True)), one.states(*batch(padded=True)))
    assert frozen(one) == frozen(other)
    assert states.shape[0] == 3


@pytest.mark.parametrize("depths", [(None, 2), (2, None), (2, 3, 1)])
def test_bases_of_other_depths_share_what_they_have_in_common(make_base, depths):
    folder = make_base("qwen2")
    held = [load(folder, depth=depth) for depth in depths]
    deepest = max((frozen(one) for one in held), key=len)
    for one in held:
        assert frozen(one).items() <= deepest.items()
    for depth, one in zip(depths, held, strict=True):
        states = one.states(*batch(padded=True))
        del one
        gc.collect()
        assert len(held[0].states(*batch(padded=True))) == len(states)
        assert depth is None or held[depths.index(depth)].config.num_hidden_layers == depth


def test_what_differs_is_not_shared(make_base):
    folder = make_base("llama")
    held = [load(folder), load(folder, dtype="bfloat16"), load(folder, quantization="nf4"), load(make_base("llama", 1))]
    starts = [set(frozen(one).values()) for one in held]
    assert not any(a & b for i, a in enumerate(starts) for b in starts[:i])


def test_moving_one_pipeline_leaves_the_others(make_base):
    one, other = load(make_base("llama")), load(make_base("llama"))
    before = other.states(*batch(padded=False))
    one.model.to(torch.bfloat16)
    assert torch.equal(other.states(*batch(padded=False)), before)


def test_the_base_goes_with_the_last_pipeline(make_base):
    folder = make_base("mistral", seed=5)
    before = live()
    one, other = load(folder), load(folder)
    assert live() == before + 1
    del one
    assert live() == before + 1
    other.states(*batch(padded=False))
    del other
    assert live() == before


def test_pipelines_over_one_base_answer_as_alone_from_many_threads(make_base, tmp_path):
    folder = make_base("llama")
    paths, alone = [], []
    for number, unmask in enumerate(("all", "none", "0011", "from:1")):
        fix_random_seed(number)
        nlp = build(folder, unmask=unmask)
        train(nlp)
        nlp.to_disk(tmp_path / unmask.replace(":", ""))
        paths.append(tmp_path / unmask.replace(":", ""))
        alone.append([(doc.text, doc.ents, doc.cats) for doc in nlp.pipe(TEXTS)])
        del nlp
        gc.collect()
    loaded = [spacy.load(path) for path in paths]
    assert len({tuple(sorted(frozen(backbone(nlp)).values())) for nlp in loaded}) == 1
    learner = trained(folder)
    stop = threading.Event()

    def learn():
        optimizer = Adam(0.01)
        data = examples(learner)
        while not stop.is_set():
            learner.update(data, sgd=optimizer)

    def ask(seed):
        rng = Random(seed)
        for _ in range(12):
            which, text = rng.randrange(len(loaded)), rng.randrange(len(TEXTS))
            doc = loaded[which](TEXTS[text])
            expected = alone[which][text]
            assert [(e.start, e.end, e.label_) for e in doc.ents] == [(e.start, e.end, e.label_) for e in expected[1]]
            assert doc.cats == pytest.approx(expected[2], abs=1e-4)

    training = threading.Thread(target=learn)
    training.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(8)))
    finally:
        stop.set()
        training.join()


def test_training_one_pipeline_leaves_the_other(make_base):
    one, other = trained(make_base()), trained(make_base())
    before = vectors(other)
    train(one, steps=5)
    assert same(vectors(other), before, 0)
    assert not same(vectors(one), before)


def test_chance_does_not_depend_on_whether_the_base_was_there(make_base):
    folder = make_base("llama", seed=6)
    torch.manual_seed(0)
    first = load(folder, lora=LoraSettings())
    torch.manual_seed(0)
    second = load(folder, lora=LoraSettings())
    for one, other in zip(first.trainable().values(), second.trainable().values(), strict=True):
        assert torch.equal(one, other)


def test_pipelines_are_made_and_loaded_in_several_threads(make_base, tmp_path):
    """transformers replaces torch's initialising functions, for all threads, while it creates a model."""
    folder = make_base("llama")
    before = {name: function for name, function in vars(torch.nn.init).items() if callable(function)}
    stored = load(folder, lora=LoraSettings())
    write_adapter(stored.model, tmp_path, BaseSettings(str(folder)))

    def make(number):
        made = load(folder, lora=LoraSettings(), adapter=tmp_path if number % 2 else None)
        return [value.detach() for name, value in made.trainable().items() if "lora_A" in name]

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(32)))
    assert {name: vars(torch.nn.init)[name] for name in before} == before
    for adapter in made[::2]:
        # peft's initial values are uniform, of about this size, and different in every layer.
        assert all(0.1 < value.std() * value.shape[1] ** 0.5 < 1 for value in adapter)
    expected = [value.detach() for name, value in stored.trainable().items() if "lora_A" in name]
    assert all(torch.equal(a, b) for adapter in made[1::2] for a, b in zip(adapter, expected, strict=True))


def test_loading_an_adapter_draws_no_random_numbers(make_base, tmp_path):
    folder = make_base("llama")
    stored = load(folder, lora=LoraSettings())
    write_adapter(stored.model, tmp_path, BaseSettings(str(folder)))
    before = torch.get_rng_state()
    load(folder, lora=LoraSettings(), adapter=tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
