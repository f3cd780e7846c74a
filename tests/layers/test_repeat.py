"""Sequence repetition: with `repeat` copies before it, a document sees its own right side through causal layers."""

import numpy as np
import pytest
import spacy
import torch
from hypothesis import given
from hypothesis import strategies as st
from pipelines import backbone, build, examples, same, train, trained, vectors
from thinc.api import Adam
from tiny import FAMILIES, TEXTS
from transformers import PreTrainedTokenizerFast
from transformers.utils import ModelOutput

from spacy_lsbillm.alignment import SpecialPieces, make_batch
from spacy_lsbillm.errors import SettingError
from spacy_lsbillm.layers import backbone_shim

BLANK = spacy.blank("xx")
# The same documents with another last word.
OTHER = [text.rsplit(" ", 1)[0] + " zagreb" for text in TEXTS]
# Fits into the positions of the tiny bases, some of which have few.
LONG = " ".join(TEXTS * 3)
WORDS = st.sampled_from(" ".join(TEXTS).split())


def whole(docs):
    return [[doc[:]] for doc in docs]


def initialized(folder, **settings):
    nlp = build(folder, heads=(), **settings)
    nlp.initialize()
    return nlp


@pytest.fixture(scope="module")
def tokenizer(make_base):
    return PreTrainedTokenizerFast.from_pretrained(make_base("llama"))


@given(
    texts=st.lists(
        st.lists(st.sampled_from(" ".join(TEXTS).split()), max_size=20).map(" ".join), min_size=1, max_size=5
    ),
    repeat=st.integers(0, 3),
    window=st.integers(8, 24),
    overlap=st.integers(0, 3),
    row=st.sampled_from([0, 64]),
    special=st.sampled_from([([], []), ([1], []), ([1, 2], [3])]),
)
def test_rows_hold_copies_with_running_positions(tokenizer, texts, repeat, window, overlap, row, special):
    """Each piece is taken from the last copy of its window, and a row contains only windows and padding."""
    around = SpecialPieces.from_lists(*special)
    sizes = {"window": window, "overlap": overlap, "max_items": 100, "pass_cost": 8, "row": row}
    docs = [BLANK.make_doc(text) for text in texts]
    once = make_batch(tokenizer, around, docs, whole, **sizes)
    batch = make_batch(tokenizer, around, docs, whole, **sizes, repeat=repeat)
    cells = np.concatenate([part.ids.ravel() for part in batch.micro_batches] or [np.zeros(0, int)])
    assert (cells[batch.slot_of_piece] == batch.ids).all() and (batch.ids == once.ids).all()
    assert len(set(batch.slot_of_piece.tolist())) == len(batch.ids)
    assert (batch.of_piece == once.of_piece).all() and (batch.pieces_per_token == once.pieces_per_token).all()
    found = []
    for part in batch.micro_batches:
        places = part.positions if part.positions is not None else np.arange(part.ids.shape[1])[None] * part.mask
        for ids, mask, place in zip(part.ids, part.mask, np.broadcast_to(places, part.ids.shape), strict=True):
            begins = [i for i in np.flatnonzero(mask) if place[i] == 0]
            for begin, end in zip(begins, [*begins[1:], int(mask.sum())], strict=True):
                assert place[begin:end].tolist() == list(range(end - begin))
                found.append(ids[begin:end].tolist())
    prefix, suffix = special
    for ids in found:
        inner = ids[len(prefix) : len(ids) - len(suffix)]
        size = len(inner) // (repeat + 1)
        assert ids[: len(prefix)] == prefix and ids[len(ids) - len(suffix) :] == suffix
        assert inner == inner[:size] * (repeat + 1) and 0 < size <= window - len(around)


# Which pieces a layer sees depends on the family, and what becomes of their states does not.
@pytest.mark.parametrize(("family", "output"), [*((family, "tokens") for family in FAMILIES), ("llama", "pieces")])
def test_causal_layers_see_the_whole_document_and_nothing_else(make_base, family, output):
    """The last word moves the first vector, in shared or padded rows; neighbours and padding have no effect."""
    nlp = initialized(make_base(family), unmask="none", repeat=1, output=output)
    alone = [vectors(nlp, [text])[0] for text in TEXTS]
    assert same(vectors(nlp, TEXTS), alone)
    assert same(vectors(nlp, TEXTS[::-1])[::-1], alone)
    for before, after in zip(alone, vectors(nlp, OTHER), strict=True):
        assert np.abs(before[0] - after[0]).max() > 1e-6
    once = initialized(make_base(family), unmask="none", output=output)
    assert same([rows[:1] for rows in vectors(once, TEXTS)], [rows[:1] for rows in vectors(once, OTHER)], 1e-6)


def test_the_vectors_are_those_of_the_last_copy(make_base):
    nlp = initialized(make_base("qwen2", max_position_embeddings=512), unmask="none", repeat=2, output="pieces")
    model, shim = backbone(nlp), backbone_shim(nlp.get_pipe("transformer").model)
    ids = model.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    row = torch.tensor([[*shim.special.prefix, *ids * 3, *shim.special.suffix]])
    begin = len(shim.special.prefix) + 2 * len(ids)
    with torch.inference_mode():
        states = model.states(row, torch.ones_like(row))[0, begin : begin + len(ids)]
    assert same(vectors(nlp, TEXTS[:1]), [states.numpy()])


def test_without_repetition_nothing_is_another(make_base):
    for unmask in ("all", "none", "0011"):
        plain = vectors(initialized(make_base(), unmask=unmask), [*TEXTS, LONG])
        none = vectors(initialized(make_base(), unmask=unmask, repeat=0), [*TEXTS, LONG])
        assert all((one == other).all() for one, other in zip(plain, none, strict=True))


def test_windows_shrink_so_that_the_copies_fit(make_base):
    base = make_base("llama", max_position_embeddings=64)
    for repeat, room in ((0, 64), (1, 32), (2, 21)):
        nlp = initialized(base, repeat=repeat)
        window, special = (
            getattr(backbone_shim(nlp.get_pipe("transformer").model), name) for name in ("window", "special")
        )
        assert window == (64 - len(special)) // (repeat + 1) + len(special) <= room + len(special)
        assert len(vectors(nlp, [LONG])[0]) == len(nlp.make_doc(LONG))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repeat": -1}, "repeat = -1 is not allowed: it must be a whole number"),
        ({"repeat": 1.5}, "repeat = 1.5 is not allowed|repeat"),
        (
            {"repeat": 8},
            r"repeat = 8 is not allowed: the base has 64 positions.*a window that is processed 9 times",
        ),
        (
            {"repeat": 1, "window": 60},
            r"window = 60 is longer than the base's 64 positions allow .*2 times its pieces.*Use at most",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make_base, settings, message):
    base = make_base("llama", max_position_embeddings=64)
    with pytest.raises((SettingError, ValueError), match=message):
        initialized(base, **settings)


def test_a_trained_pipeline_keeps_its_repetition(make_base, tmp_path):
    nlp = trained(make_base(), unmask="none", repeat=1)
    expected = vectors(nlp)
    nlp.to_disk(tmp_path / "pipeline")
    loaded = spacy.load(tmp_path / "pipeline")
    assert loaded.config["components"]["transformer"]["model"]["repeat"] == 1
    assert same(vectors(loaded), expected)
    sent = spacy.util.load_model_from_config(nlp.config).from_bytes(nlp.to_bytes())
    assert same(vectors(sent), expected)
    loaded.replace_listeners("transformer", "ner", ["model.tok2vec"])
    assert len(list(loaded.pipe(TEXTS))) == len(TEXTS)
    with pytest.warns(UserWarning, match="trained with repeat = 1, and is loaded with 0"):
        other = spacy.load(tmp_path / "pipeline", config={"components": {"transformer": {"model": {"repeat": 0}}}})
        assert not same(vectors(other), expected)


@pytest.mark.parametrize("unmask", ["none", "0011"])
def test_it_learns(make_base, unmask):
    torch.manual_seed(0)
    nlp = build(make_base(), unmask=unmask, repeat=1)
    data = examples(nlp)
    first = train(nlp, steps=1)
    optimizer = Adam(0.01)
    for _ in range(30):
        losses = nlp.update(data, sgd=optimizer, losses={})
    assert losses["ner"] < 0.5 * first["ner"]


def test_gradients_are_those_of_finite_differences(make_base):
    """Along one direction of all adapter weights together; a step of 1e-4 is already too long."""
    nlp = initialized(make_base(), unmask="none", repeat=1, lora={"r": 4, "dropout": 0.0})
    model = nlp.get_pipe("transformer").model
    torch.manual_seed(0)
    weights = list(backbone(nlp).adapter_parameters().values())
    directions = [torch.randn_like(weight) for weight in weights]

    def move(step, along=directions):
        with torch.no_grad():
            for weight, one in zip(weights, along, strict=True):
                weight.add_(one, alpha=step)

    move(0.1, [torch.randn_like(weight) for weight in weights])
    docs = [nlp.make_doc(text) for text in TEXTS]
    output, backprop = model.begin_update(docs)
    wanted = np.random.default_rng(0).normal(size=output.model_output.last_hidden_state.shape)
    output.model_output = ModelOutput(last_hidden_state=torch.from_numpy(wanted.astype("f")))
    backprop(output)
    slope = sum(float((weight.grad * along).sum()) for weight, along in zip(weights, directions, strict=True))

    def value(step):
        move(step)
        found = model.predict(docs).model_output.last_hidden_state
        move(-step)
        return float((found.astype("d") * wanted).sum())

    assert slope == pytest.approx((value(1e-5) - value(-1e-5)) / 2e-5, rel=2e-2)
