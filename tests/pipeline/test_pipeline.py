"""The component in spaCy pipelines: training, listeners, saving, loading."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import spacy
import srsly
import torch
from peft import PeftModel
from pipelines import TEXTCAT, backbone, build, examples, same, train, trained, vectors
from spacy.util import fix_random_seed
from thinc.api import Adam
from tiny import FAMILIES, TEXTS
from transformers import AutoModelForCausalLM

from spacy_lsbillm.errors import AdapterError, BaseError, MaskError, SettingError, StorageError
from spacy_lsbillm.files import write_seal

# Building and running


def test_the_default_settings_are_enough(make_base):
    nlp = spacy.blank("en")
    block = {"@architectures": "spacy-lsbillm.BiLLMModel.v1", "name": str(make_base())}
    pipe = nlp.add_pipe("billm_transformer", name="transformer", config={"model": block})
    assert not pipe.model.shims[0].loaded
    nlp.initialize()
    assert all(pipe.mask.unmasked)
    assert "bidirectional" in pipe.mask.words
    filled = nlp.config["components"]["transformer"]["model"]
    assert filled["lora"]["r"] == 16
    assert filled["unmask"] == "all"
    assert filled["store_base"] == "reference"


def test_without_its_base_the_component_says_what_to_do(make_base):
    nlp = build(make_base(), heads=())
    with pytest.raises(StorageError, match="initialize"):
        nlp("play some jazz")


def test_one_vector_per_token(make_base):
    nlp = build(make_base(), heads=())
    nlp.initialize()
    docs = list(nlp.pipe([*TEXTS, "", "  ", "a\n\n b"]))
    for doc in docs:
        data = doc._.trf_data
        if len(doc):
            assert data.model_output.last_hidden_state.shape == (1, len(doc), 32)
            assert data.model_output.last_hidden_state.dtype == np.float32
            assert data.align.lengths.tolist() == [1] * len(doc)
            assert data.align.dataXd.tolist() == list(range(len(doc)))
    assert len(docs[4]) == 0


def test_vectors_are_the_means_of_the_pieces_states(make_base):
    nlp = build(make_base(), heads=())
    nlp.initialize()
    doc = nlp("évening jazz")
    tokenizer = backbone(nlp).tokenizer
    encoded = tokenizer(doc.text, return_offsets_mapping=True)
    ids = torch.tensor([encoded["input_ids"]])
    with torch.no_grad():
        states = backbone(nlp).states(ids, torch.ones_like(ids))[0].numpy()
    for token, vector in zip(doc, doc._.trf_data.model_output.last_hidden_state[0], strict=True):
        end = token.idx + len(token)
        inside = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if a < end and b > token.idx and b > a]
        assert np.allclose(vector, states[inside].mean(0), atol=1e-5)


@pytest.mark.parametrize("start", [True, False])
def test_vectors_do_not_depend_on_the_batch(make_base, start):
    nlp = build(make_base(start=start), heads=())
    nlp.initialize()
    texts = [*TEXTS, "", "jazz", " ".join(TEXTS * 3)]
    alone = [vectors(nlp, [text])[0] if text else None for text in texts]
    for size in (2, 7):
        for text, got, expected in zip(texts, nlp.pipe(texts, batch_size=size), alone, strict=True):
            if text:
                assert np.allclose(got._.trf_data.model_output.last_hidden_state[0], expected, atol=1e-4)


def test_a_long_document_goes_through_windows(make_base):
    """Splitting a long text into windows must not change the vectors of its first window.

    With a causal model and windows that overlap by all but one piece, each token has nearly its whole window as
    context.
    """
    nlp = build(make_base(), heads=(), unmask="none", window=16, overlap=8)
    nlp.initialize()
    long = " ".join(TEXTS * 5)
    whole, first = nlp(long)._.trf_data, nlp(" ".join(TEXTS[0].split()[:3]))._.trf_data
    assert whole.model_output.last_hidden_state.shape[1] == len(nlp.make_doc(long))
    assert np.isfinite(whole.model_output.last_hidden_state).all()
    assert np.allclose(
        whole.model_output.last_hidden_state[0, :3], first.model_output.last_hidden_state[0, :3], atol=1e-4
    )
    assert (np.abs(whole.model_output.last_hidden_state[0]).sum(-1) > 0).all()


def test_the_mask_reaches_through_the_pipeline(make_base):
    for unmask in ("none", "0001"):
        nlp = build(make_base(), heads=(), unmask=unmask)
        nlp.initialize()
        one, other = vectors(nlp, ["play some jazz by miles", "play some jazz by maria"])
        assert np.allclose(one[0], other[0], atol=1e-6) == (unmask == "none")


# Training


def test_training_changes_adapters_and_heads_and_leaves_the_base_bit_identical(make_base):
    fix_random_seed(0)
    nlp = build(make_base())
    first = train(nlp, steps=1)
    parameters = dict(backbone(nlp).model.named_parameters())
    before = {name: value.detach().clone() for name, value in parameters.items()}
    data, optimizer = examples(nlp), Adam(0.002)
    for _ in range(40):
        losses = nlp.update(data, sgd=optimizer, losses={})
    assert losses["ner"] < first["ner"] / 2
    assert losses["textcat"] < 0.8 * first["textcat"]
    for name, value in parameters.items():
        assert torch.equal(before[name], value) == ("lora_" not in name), name
    on_disk = AutoModelForCausalLM.from_pretrained(make_base()).state_dict()
    held = {name.replace("base_model.model.", "").replace(".base_layer", ""): v for name, v in parameters.items()}
    assert all(torch.equal(held[name], value) for name, value in on_disk.items() if name in held)


def test_one_forward_and_one_backward_pass_serve_all_listeners(make_base):
    nlp = build(make_base())
    data = examples(nlp)
    optimizer = nlp.initialize(lambda: data)
    layer = backbone(nlp).model.get_submodule("base_model.model.model.layers.0")
    passes = {"forward": 0, "backward": 0}

    def count(layer, args, output):
        passes["forward"] += 1
        # In transformers 5 the output is only a tensor.
        state = output[0] if isinstance(output, tuple) else output
        state.register_hook(lambda gradient: passes.__setitem__("backward", passes["backward"] + 1))

    layer.register_forward_hook(count)
    nlp.update(data[:1], sgd=optimizer)
    assert passes == {"forward": 1, "backward": 1}


def test_the_gradients_of_all_listeners_add_up(make_base):
    """One step of plain gradient descent with both heads moves the adapter by the sum of what each does alone."""
    from thinc.api import SGD

    moves = {}
    for heads in (("ner",), ("textcat",), ("ner", "textcat")):
        fix_random_seed(0)
        nlp = build(make_base(), heads=("ner", "textcat"), lora={"dropout": 0.0})
        data = examples(nlp)
        nlp.initialize(lambda data=data: data)
        before = {n: p.detach().clone() for n, p in backbone(nlp).trainable().items()}
        for head in {"ner", "textcat"} - set(heads):
            nlp.remove_pipe(head)
        trf = nlp.get_pipe("transformer")
        for name in set(trf.listener_map) - set(heads):
            del trf.listener_map[name]
        nlp.update(data, sgd=SGD(0.01, grad_clip=0.0))
        moves[heads] = {n: p.detach() - before[n] for n, p in backbone(nlp).trainable().items()}
    for name, both in moves["ner", "textcat"].items():
        torch.testing.assert_close(both, moves["ner",][name] + moves["textcat",][name], rtol=1e-3, atol=1e-7)


def test_the_same_seed_gives_the_same_twice(make_base):
    # Whether an adapter is folded, and so the last digits, depends on what else uses the base at the moment.
    one, two = (vectors(trained(make_base(), fold_adapter="never")) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_a_start_token_is_as_if_the_tokenizer_had_one(make_base, tmp_path):
    with_token, without = (make_base(start=start) for start in (True, False))
    expected = vectors(trained(with_token, steps=1))
    nlp = trained(without, steps=1, add_bos_token=True)
    nlp.to_disk(tmp_path / "pipeline")
    for found in (vectors(nlp), vectors(spacy.load(tmp_path / "pipeline"))):
        assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))
    assert not np.allclose(vectors(trained(without, steps=1))[0], expected[0], atol=1e-3)


def test_learn_rate_scale_changes_the_adapter_alone(make_base):
    moves = []
    for scale in (1.0, 0.5):
        fix_random_seed(0)
        nlp = build(make_base(), heads=("textcat",), learn_rate_scale=scale, lora={"dropout": 0.0})
        data = examples(nlp)
        nlp.initialize(lambda data=data: data)
        head = nlp.get_pipe("textcat").model
        (output,) = [node for node in head.walk() if node.name == "linear" or node.has_param("W")][:1]
        before = [p.detach().clone() for p in backbone(nlp).trainable().values()], output.get_param("W").copy()
        nlp.update(data, sgd=Adam(0.01, L2=0.0))
        after = list(backbone(nlp).trainable().values()), output.get_param("W")
        adapter = sum((b - a).abs().sum().item() for a, b in zip(before[0], after[0], strict=True))
        moves.append((adapter, np.abs(after[1] - before[1]).sum()))
    assert moves[1][0] == pytest.approx(moves[0][0] / 2, rel=1e-2)
    assert moves[1][1] == pytest.approx(moves[0][1], rel=1e-5)


def test_averages_are_used_and_put_back(make_base):
    fix_random_seed(0)
    nlp = build(make_base())
    optimizer = Adam(0.01, use_averages=True)
    train(nlp, steps=5, optimizer=optimizer)
    shim = nlp.get_pipe("transformer").model.shims[0]
    current = {n: p.detach().clone() for n, p in shim.backbone.trainable().items()}
    plain = vectors(nlp)
    with nlp.use_params(optimizer.averages):
        for name, parameter in shim.backbone.trainable().items():
            assert np.allclose(parameter.detach().numpy(), optimizer.averages[shim.id, name])
        assert not same(vectors(nlp), plain)
        saved = nlp.to_bytes()
    assert all(torch.equal(current[n], p) for n, p in shim.backbone.trainable().items())
    assert same(vectors(nlp), plain)
    reloaded = type(nlp).from_config(nlp.config).from_bytes(saved)
    assert not same(vectors(reloaded), plain)


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": "bfloat16"},
        {"quantization": "nf4"},
        {"lora": {"use_dora": True}},
        {"depth": 2},
        {"depth": 2, "store_base": "merged"},
        {"scalar_mix": "from:2"},
        {"scalar_mix": "all", "depth": 3, "store_base": "copy"},
        {"gradient_checkpointing": True},
    ],
)
def test_other_ways_to_hold_the_base_train_save_and_load(make_base, tmp_path, settings):
    nlp = trained(make_base(), **settings)
    nlp.to_disk(tmp_path / "pipeline")
    assert same(vectors(spacy.load(tmp_path / "pipeline")), vectors(nlp), 1e-4)


def test_a_frozen_base_trains_the_heads_alone(make_base, tmp_path):
    fix_random_seed(0)
    nlp = build(make_base(), lora=None)
    first = train(nlp, steps=1)
    before = vectors(nlp)
    last = train(nlp, steps=20)
    assert last["textcat"] < first["textcat"]
    assert backbone(nlp).trainable() == {}
    assert same(vectors(nlp), before)
    nlp.to_disk(tmp_path / "pipeline")
    assert not (tmp_path / "pipeline" / "transformer" / "adapter").exists()
    assert same(vectors(spacy.load(tmp_path / "pipeline")), before)


# Saving and loading

SAVED = ("llama", "gpt2", "gemma3_text")


@pytest.mark.parametrize("family", SAVED)
@pytest.mark.parametrize("store_base", ["reference", "copy", "merged"])
def test_what_is_saved_gives_the_same_when_loaded(make_base, tmp_path, store_base, family):
    nlp = trained(make_base(family), steps=2, unmask="0011", store_base=store_base)
    nlp.to_disk(tmp_path / "pipeline")
    expected = [(doc.cats, [str(e) for e in doc.ents]) for doc in nlp.pipe(TEXTS)]
    from_disk = spacy.load(tmp_path / "pipeline")
    from_bytes = type(nlp).from_config(nlp.config).from_bytes(nlp.to_bytes())
    for loaded in (from_disk, from_bytes):
        assert same(vectors(loaded), vectors(nlp), 1e-4)
        for doc, (cats, ents) in zip(loaded.pipe(TEXTS), expected, strict=True):
            assert doc.cats == pytest.approx(cats, abs=1e-3)
            assert [str(e) for e in doc.ents] == ents
        assert loaded.get_pipe("transformer").mask == nlp.get_pipe("transformer").mask
    # Save again from the loaded pipeline.
    from_bytes.to_disk(tmp_path / "again")
    assert same(vectors(spacy.load(tmp_path / "again")), vectors(nlp), 1e-4)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in SAVED])
def test_a_merged_base_gives_the_same(make_base, tmp_path, family):
    """Merging treats the layers of each family; what else is saved does not depend on it."""
    nlp = trained(make_base(family), steps=2, heads=("textcat",), unmask="0011", store_base="merged")
    nlp.to_disk(tmp_path / "pipeline")
    assert not (tmp_path / "pipeline" / "transformer" / "adapter").exists()
    loaded = spacy.load(tmp_path / "pipeline")
    assert same(vectors(loaded), vectors(nlp), 1e-4)
    for doc, expected in zip(loaded.pipe(TEXTS), nlp.pipe(TEXTS), strict=True):
        assert doc.cats == pytest.approx(expected.cats, abs=1e-3)


@pytest.mark.parametrize("store_base", ["copy", "merged"])
def test_a_stored_base_needs_no_other(make_base, tmp_path, store_base):
    base = shutil.copytree(make_base(), tmp_path / "base")
    nlp = trained(base, store_base=store_base)
    nlp.to_disk(tmp_path / "pipeline")
    expected = vectors(nlp)
    shutil.rmtree(base)
    assert same(vectors(spacy.load(tmp_path / "pipeline")), expected, 1e-4)


def test_a_reference_holds_no_base_weights(make_base, tmp_path):
    trained(make_base()).to_disk(tmp_path / "pipeline")
    stored = [path.name for path in (tmp_path / "pipeline" / "transformer").rglob("*.safetensors")]
    assert stored == ["adapter_model.safetensors"]
    # Without peft's model card about the base.
    adapter = {path.name for path in (tmp_path / "pipeline" / "transformer" / "adapter").iterdir()}
    assert adapter == {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.filterwarnings("error:.*missing adapter keys.*")
def test_plain_peft_finds_the_layers_of_a_shallower_base(make_base, tmp_path):
    trained(make_base(), unmask="none", depth=2).to_disk(tmp_path / "pipeline")
    plain = AutoModelForCausalLM.from_pretrained(make_base())
    model = PeftModel.from_pretrained(plain, tmp_path / "pipeline" / "transformer" / "adapter")
    adapted = {name.split(".")[4] for name, _ in model.named_parameters() if "lora_" in name}
    assert adapted == {"0", "1"}


def test_a_mix_is_saved_with_what_it_learned(make_base, tmp_path):
    nlp = trained(make_base(), steps=5, scalar_mix="all")
    learned = nlp.get_pipe("transformer").model.shims[0].backbone.mix.weights
    assert learned.abs().max() > 0
    nlp.to_disk(tmp_path / "pipeline")
    loaded = spacy.load(tmp_path / "pipeline").get_pipe("transformer").model.shims[0].backbone.mix.weights
    assert torch.equal(loaded, learned)
    (tmp_path / "pipeline" / "transformer" / "mix.safetensors").write_bytes(b"damaged")
    with pytest.raises(StorageError, match=r"mix\.safetensors is altered"):
        spacy.load(tmp_path / "pipeline")


def test_settings_other_than_the_trained_ones_are_refused(make_base, tmp_path):
    trained(make_base(), depth=3).to_disk(tmp_path / "pipeline")
    for setting, value in (("depth", 2), ("scalar_mix", "all")):
        config = {"components": {"transformer": {"model": {setting: value}}}}
        with pytest.raises(StorageError, match=f"{setting} = .*trained with"):
            spacy.load(tmp_path / "pipeline", config=config)


def test_a_message_that_names_files_elsewhere_is_refused(make_base, tmp_path):
    shim = trained(make_base(), heads=()).get_pipe("transformer").model.shims[0]
    files = srsly.msgpack_loads(shim.to_bytes())
    files["../../outside"] = [b"x"]
    with pytest.raises(StorageError, match="outside"):
        shim.from_bytes(srsly.msgpack_dumps(files))


@pytest.mark.filterwarnings("error:.*missing adapter keys.*")
def test_plain_peft_loads_the_adapter(make_base, tmp_path):
    nlp = trained(make_base(), unmask="none")
    nlp.to_disk(tmp_path / "pipeline")
    plain = AutoModelForCausalLM.from_pretrained(make_base())
    model = PeftModel.from_pretrained(plain, tmp_path / "pipeline" / "transformer" / "adapter").eval()
    ids = torch.tensor([backbone(nlp).tokenizer(TEXTS[0])["input_ids"]])
    backbone(nlp).model.eval()
    with torch.no_grad():
        theirs = model.base_model.model.model(ids).last_hidden_state
        ours = backbone(nlp).states(ids, torch.ones_like(ids))
        untrained = AutoModelForCausalLM.from_pretrained(make_base()).model(ids).last_hidden_state
    torch.testing.assert_close(theirs, ours)
    assert not torch.allclose(theirs, untrained, atol=1e-3)
    config = json.loads((tmp_path / "pipeline" / "transformer" / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(make_base())


def test_the_base_can_be_elsewhere_when_loaded(make_base, tmp_path):
    base = shutil.copytree(make_base(), tmp_path / "base")
    nlp = trained(base)
    nlp.to_disk(tmp_path / "pipeline")
    base.rename(tmp_path / "moved")
    with pytest.raises(BaseError, match="no folder"):
        spacy.load(tmp_path / "pipeline")
    place = {"components": {"transformer": {"model": {"name": str(tmp_path / "moved")}}}}
    assert same(vectors(spacy.load(tmp_path / "pipeline", config=place)), vectors(nlp))


def test_another_base_is_refused_with_both_named(make_base, tmp_path):
    trained(make_base()).to_disk(tmp_path / "pipeline")
    record = json.loads((tmp_path / "pipeline" / "transformer" / "billm.json").read_text())
    other = str(make_base(seed=1))
    with pytest.raises(BaseError, match="fingerprint") as caught:
        spacy.load(tmp_path / "pipeline", config={"components": {"transformer": {"model": {"name": other}}}})
    assert other in str(caught.value)
    assert record["base"]["fingerprint"] in str(caught.value)


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "garbage"])
@pytest.mark.parametrize("file", ["adapter/adapter_model.safetensors", "adapter/adapter_config.json", "billm.json"])
def test_a_damaged_file_is_refused_by_name(make_base, tmp_path, file, damage):
    trained(make_base(), steps=1).to_disk(tmp_path / "pipeline")
    path = tmp_path / "pipeline" / "transformer" / file
    content = path.read_bytes()
    if damage == "delete":
        path.unlink()
    elif damage == "flip":
        path.write_bytes(content[:-30] + bytes([content[-30] ^ 255]) + content[-29:])
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"garbage")
    with pytest.raises((StorageError, AdapterError), match=path.name):
        spacy.load(tmp_path / "pipeline")


def test_a_mask_or_an_adapter_other_than_the_trained_one(make_base, tmp_path):
    trained(make_base(), steps=1).to_disk(tmp_path / "pipeline")

    def load(**model):
        return spacy.load(tmp_path / "pipeline", config={"components": {"transformer": {"model": model}}})

    with pytest.warns(UserWarning, match=r"trained with layers 0-3 bidirectional.*loaded with layers 0-3 causal"):
        load(unmask="none")
    with pytest.raises(AdapterError, match=r"'r': 4.*'r': 16"):
        load(lora={"r": 4})


def entities(nlp):
    return [[(ent.start, ent.end, ent.label_) for ent in doc.ents] for doc in nlp.pipe(SPACED)]


SPACED = ["play  some\n\njazz\n", "\tbook a\u00a0table", "will it\r\nrain"]


@pytest.mark.parametrize("output", ["tokens", "pieces"])
@pytest.mark.parametrize("choice", [None, "text", "blank"])
def test_white_space_is_shown_as_in_training(make_base, tmp_path, choice, output):
    """Also if the default changes, and if the pipeline is saved again, sent, copied or given to a listener."""
    nlp = trained(make_base(), steps=1, white_space=choice, output=output)
    expected = vectors(nlp, SPACED)
    nlp.to_disk(tmp_path / "pipeline")
    record = json.loads((tmp_path / "pipeline" / "transformer" / "billm.json").read_text())
    assert record["fitted"]["cutting"]["white_space"] == (choice or "lines")
    loaded = spacy.load(tmp_path / "pipeline")
    assert same(vectors(loaded, SPACED), expected)
    loaded.to_disk(tmp_path / "again")
    assert same(vectors(spacy.load(tmp_path / "again"), SPACED), expected)
    sent = spacy.util.load_model_from_config(nlp.config).from_bytes(nlp.to_bytes())
    assert same(vectors(sent, SPACED), expected)
    sourced = spacy.blank("en")
    sourced.add_pipe("transformer", source=spacy.load(tmp_path / "pipeline"))
    assert same(vectors(sourced, SPACED), expected)
    found = entities(loaded)
    loaded.replace_listeners("transformer", "ner", ["model.tok2vec"])
    shims = [shim for node in loaded.get_pipe("ner").model.walk() for shim in node.shims]
    assert [shim.white_space for shim in shims if hasattr(shim, "white_space")] == [choice or "lines"]
    assert entities(loaded) == found


def test_a_pipeline_of_before_is_shown_white_space_as_it_is(make_base, tmp_path):
    nlp = trained(make_base(), steps=1, white_space="text")
    expected = vectors(nlp, SPACED)
    nlp.to_disk(tmp_path / "pipeline")
    folder = tmp_path / "pipeline" / "transformer"
    record = json.loads((folder / "billm.json").read_text())
    del record["fitted"]
    (folder / "billm.json").write_text(json.dumps(record))
    write_seal(folder)
    config = tmp_path / "pipeline" / "config.cfg"
    config.write_text(config.read_text().replace('white_space = "text"\n', ""))
    loaded = spacy.load(tmp_path / "pipeline")
    assert same(vectors(loaded, SPACED), expected)
    assert not same(vectors(trained(make_base(), steps=1), SPACED), expected)
    loaded.to_disk(tmp_path / "again")
    assert same(vectors(spacy.load(tmp_path / "again"), SPACED), expected)


def test_white_space_other_than_in_training_is_named(make_base, tmp_path):
    nlp = trained(make_base(), steps=1)
    nlp.to_disk(tmp_path / "pipeline")
    config = {"components.transformer.model.white_space": "blank"}
    with pytest.warns(UserWarning, match="trained with white_space = 'lines'.*loaded with 'blank'"):
        loaded = spacy.load(tmp_path / "pipeline", config=config)
    plain = [
        rows[[i for i, token in enumerate(doc) if not token.is_space]]
        for rows, doc in zip(vectors(loaded, SPACED), map(loaded.make_doc, SPACED), strict=True)
    ]
    assert same(plain, vectors(loaded, ["play some jazz", "book a table", "will it rain"]), 1e-4)


def test_a_merged_pipeline_says_what_it_cannot_do(make_base, tmp_path):
    trained(make_base(), store_base="merged", steps=1).to_disk(tmp_path / "pipeline")
    nlp = spacy.load(tmp_path / "pipeline")
    with pytest.raises(StorageError, match="no adapter left to train"):
        nlp.update(examples(nlp), sgd=Adam(0.001))
    place = {"components": {"transformer": {"model": {"name": str(make_base(seed=1))}}}}
    with pytest.raises(StorageError, match="folded in"):
        spacy.load(tmp_path / "pipeline", config=place)


def test_saving_twice_leaves_no_leftovers(make_base, tmp_path):
    nlp = trained(make_base(), steps=1)
    nlp.to_disk(tmp_path / "pipeline")
    nlp.to_disk(tmp_path / "pipeline")
    folders = sorted(path.name for path in (tmp_path / "pipeline").iterdir() if path.is_dir())
    assert folders == ["ner", "textcat", "transformer", "vocab"]
    assert same(vectors(spacy.load(tmp_path / "pipeline")), vectors(nlp))


def test_an_unchanged_component_can_be_trained_further_from_another_pipeline(make_base, tmp_path):
    source = trained(make_base())
    source.to_disk(tmp_path / "pipeline")
    loaded = spacy.load(tmp_path / "pipeline")
    nlp = spacy.blank("en")
    nlp.add_pipe("transformer", source=loaded)
    before = vectors(nlp)
    nlp.add_pipe("textcat", config={"model": TEXTCAT})
    assert same(before, vectors(source))
    train(nlp, steps=3)
    assert not same(vectors(nlp), before, 1e-3)


# Settings out of range


@pytest.mark.parametrize(
    ("model", "error", "said"),
    [
        ({"unmask": "sideways"}, MaskError, "sideways"),
        ({"unmask": 1100}, MaskError, "bits:1100"),
        ({"lora": {"rank": 4}}, AdapterError, "rank"),
        ({"lora": {"r": -4}}, AdapterError, "-4"),
        ({"dtype": "float8"}, SettingError, "float8"),
        ({"quantization": "nf5"}, SettingError, "nf5"),
        ({"store_base": "yes"}, SettingError, "reference"),
        ({"learn_rate_scale": 0.0}, SettingError, "above 0"),
        ({"window": 1}, SettingError, "at least 2"),
        ({"overlap": -1}, SettingError, "overlap = -1 is not allowed"),
        ({"white_space": "tabs"}, SettingError, "'text', 'lines', 'blank'"),
    ],
)
def test_settings_are_checked_when_the_component_is_added(model, error, said):
    with pytest.raises(error, match=said):
        build("nowhere", heads=(), **model)


def test_max_batch_items_out_of_range():
    with pytest.raises(SettingError, match="max_batch_items"):
        spacy.blank("en").add_pipe("billm_transformer", config={"max_batch_items": 0})


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"window": 65}, "64 positions"),
        ({"window": 16, "overlap": 15}, "below 15"),
        ({"window": 16, "overlap": 16}, "below"),
    ],
)
def test_windows_that_do_not_fit_the_base(make_base, model, said):
    nlp = build(make_base(), heads=(), **model)
    with pytest.raises(SettingError, match=said):
        nlp.initialize()


def test_max_batch_items_changes_the_passes_and_not_the_vectors(make_base):
    results = []
    for items in (8, 4096):
        nlp = build(make_base(), heads=())
        nlp.initialize()
        nlp.get_pipe("transformer").model.attrs["max_batch_items"] = items
        results.append(vectors(nlp))
    assert same(*results, 1e-4)


def test_the_record_says_what_was_used(make_base, tmp_path):
    trained(make_base(), unmask="0001", steps=1).to_disk(tmp_path / "pipeline")
    record = json.loads(Path(tmp_path / "pipeline" / "transformer" / "billm.json").read_text())
    assert record["mask"]["unmasked_layers"] == [3]
    assert record["base"]["name"] == str(make_base())
    assert record["base"]["layers"] == 4
    assert set(record["versions"]) >= {"torch", "transformers", "peft", "spacy-lsbillm"}


def test_eight_bit_optimizer_states_train_the_adapter(make_base):
    # For smaller tensors the optimizer's states stay in float32.
    wide = {"hidden_size": 128, "intermediate_size": 256}
    fix_random_seed(0)
    nlp = build(make_base("llama", **wide), lora={"r": 32}, adapter_optimizer="adamw_8bit", learn_rate_scale=0.5)
    first = train(nlp, 1, Adam(0.002, use_averages=False))
    last = train(nlp, 20, Adam(0.002, use_averages=False))
    assert last["ner"] < first["ner"]


def test_the_adapters_first_step_is_thincs(make_base):
    moved, base = [], make_base()
    for adapter_optimizer in (None, "adamw_8bit"):
        fix_random_seed(0)
        nlp = build(base, adapter_optimizer=adapter_optimizer, learn_rate_scale=0.5, lora={"dropout": 0})
        train(nlp, 1, Adam(0.002, use_averages=False, L2=0.01, grad_clip=1.0))
        moved.append(backbone(nlp).trainable())
    for name in moved[0]:
        # If a gradient is close to zero, epsilon decides, which the two optimizers add at different places.
        near = (moved[0][name] - moved[1][name]).abs() < 2e-5
        assert near.float().mean() > 0.99, name


def test_adapter_optimizer_says_what_it_cannot_do(make_base):
    nlp = build(make_base(), adapter_optimizer="adamw_8bit")
    with pytest.raises(SettingError, match="use_averages = false"):
        train(nlp, 1, Adam(0.002))
    with pytest.raises(SettingError, match="needs a GPU"):
        train(build(make_base(), adapter_optimizer="paged_adamw_8bit"), 1, Adam(0.002, use_averages=False))
    with pytest.raises(SettingError, match="adapter_optimizer = 'sgd' is not allowed"):
        build(make_base(), adapter_optimizer="sgd")


def test_a_doc_cleaner_drops_the_vectors_behind_the_last_listener(make_base):
    nlp = build(make_base())
    nlp.add_pipe("doc_cleaner", config={"attrs": {"_.trf_data": None}})
    train(nlp)
    docs = list(nlp.pipe(TEXTS))
    assert all(doc._.trf_data is None and doc.cats for doc in docs)
