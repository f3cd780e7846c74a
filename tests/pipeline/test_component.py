"""The component as users of spacy-transformers know it: what it sets, who listens, what is frozen, what is shared."""

import gc
import os
import subprocess
import sys

import numpy as np
import pytest
import spacy
import torch
from pipelines import LISTENER, NER, TEXTCAT, backbone, build, examples, same, train, trained, vectors
from places import HELPERS
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.util import fix_random_seed, registry
from spacy_transformers.data_classes import TransformerData
from thinc.api import SGD, Adam, Config
from thinc.types import Ragged
from tiny import TEXTS
from transformers.utils import logging

from spacy_lsbillm.errors import ListenerError, SettingError, StorageError


def adapter(nlp, name="transformer"):
    """A copy of the adapter's values."""
    shim = nlp.get_pipe(name).model.shims[0]
    return [value.detach().clone() for value in shim.backbone.trainable().values()]


def moved(before, after):
    return any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


# What it sets


def test_what_a_document_carries(make_base):
    nlp = trained(make_base(), heads=())
    doc = nlp("book a table for two")
    data = doc._.trf_data
    assert isinstance(data, TransformerData)
    assert data.width == 32
    assert data.model_output.last_hidden_state.shape == (1, len(doc), 32)
    assert data.align.lengths.tolist() == [1] * len(doc)
    again = TransformerData.empty().from_bytes(data.to_bytes())
    assert np.array_equal(again.model_output.last_hidden_state, data.model_output.last_hidden_state)


def test_extra_annotations_are_set_after_the_vectors(make_base):
    seen = []

    @registry.annotation_setters("tests.norms.v1")
    def make_setter():
        return lambda docs, batch: seen.append(([doc._.trf_data.width for doc in docs], len(batch.doc_data)))

    nlp = spacy.blank("en")
    model = {"@architectures": "spacy-lsbillm.BiLLMModel.v1", "name": str(make_base())}
    setter = {"@annotation_setters": "tests.norms.v1"}
    nlp.add_pipe("billm_transformer", config={"model": model, "set_extra_annotations": setter})
    nlp.initialize()
    list(nlp.pipe(TEXTS))
    assert seen == [([32] * len(TEXTS), len(TEXTS))]


@pytest.mark.parametrize("n_process", [1, 2])
def test_processes_give_the_same(make_base, n_process):
    nlp = trained(make_base())
    expected = [(doc.cats, [str(ent) for ent in doc.ents]) for doc in map(nlp, TEXTS)]
    found = [(doc.cats, [str(ent) for ent in doc.ents]) for doc in nlp.pipe(TEXTS, n_process=n_process, batch_size=2)]
    for (cats, ents), (cats_found, ents_found) in zip(expected, found, strict=True):
        assert ents == ents_found
        assert cats_found == pytest.approx(cats, abs=1e-5)


# In a program of its own: a forked process can hang on torch's thread pool, and the tests have only one thread.
PROCESSES = """
import multiprocessing
import sys

import torch

if __name__ == "__main__":
    torch.set_num_threads(2)
    from pipelines import trained
    from tiny import TEXTS

    nlp = trained(sys.argv[1])
    multiprocessing.set_start_method("fork", force=True)
    print(sum(doc.has_annotation("ENT_IOB") for doc in nlp.pipe(TEXTS, n_process=2, batch_size=2)))
"""


@pytest.mark.slow
@pytest.mark.any_stack
def test_processes_are_forked_from_one_with_threads(make_base, tmp_path):
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    command = [sys.executable, str(script), str(make_base())]
    environment = {**os.environ, "PYTHONPATH": str(HELPERS), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(len(TEXTS))], done.stderr


@pytest.mark.parametrize("fold_adapter", ["auto", "never"])
def test_annotating_in_training_goes_with_gradient_checkpointing(make_base, fold_adapter):
    """A prediction between forward and backward must not change how layers are recomputed."""
    nlp = build(make_base(), gradient_checkpointing=True, fold_adapter=fold_adapter, lora={"r": 4, "dropout": 0.1})
    data = examples(nlp)
    nlp.initialize(lambda: data)
    optimizer, before = Adam(0.002), adapter(nlp)
    for _ in range(2):
        nlp.update(data, sgd=optimizer, annotates=["transformer"])
    assert moved(before, adapter(nlp))


def test_what_is_given_at_load_holds(make_base, tmp_path):
    trained(make_base()).to_disk(tmp_path / "p")
    changed = {"max_batch_items": 64, "model": {"lora": {"dropout": 0.5}}}
    nlp = spacy.load(tmp_path / "p", config={"components": {"transformer": changed}})
    transformer = nlp.get_pipe("transformer")
    assert transformer.cfg["max_batch_items"] == transformer.model.attrs["max_batch_items"] == 64
    rates = {m.p for name, m in backbone(nlp).model.named_modules() if "lora_dropout.default" in name}
    assert rates == {0.5}


def test_several_processes_on_one_gpu_are_told_so(make_base, monkeypatch):
    nlp = trained(make_base())
    monkeypatch.setattr("spacy_lsbillm.backbone.Backbone.device", torch.device("cuda", 0))
    with pytest.raises(ValueError, match="leave n_process = 1"):
        list(nlp.pipe(TEXTS * 4, n_process=2, batch_size=2))


def test_prediction_leaves_nothing_with_the_listeners(make_base):
    nlp = trained(make_base())
    list(nlp.pipe(TEXTS))
    for listener in nlp.get_pipe("transformer").listeners:
        assert listener._outputs is None
        assert listener._backprop is None


@pytest.mark.parametrize(
    "getter",
    [
        {"@span_getters": "spacy-transformers.strided_spans.v1", "window": 4, "stride": 3},
        {"@span_getters": "spacy-transformers.sent_spans.v1"},
    ],
)
def test_span_getters_decide_what_is_seen_at_once(make_base, getter):
    """A token in two spans has the mean of both; a token in one span has the vector from that span's text."""
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    model = {"@architectures": "spacy-lsbillm.BiLLMModel.v1", "name": str(make_base()), "get_spans": getter}
    nlp.add_pipe("billm_transformer", name="transformer", config={"model": model})
    nlp.initialize()
    text = "it will rain today . play some jazz now ."
    found = nlp(text)._.trf_data.model_output.last_hidden_state[0]
    first, second = "it will rain today", " play some jazz now ."
    whole = trained(make_base(), heads=())
    assert not same([found], vectors(whole, [text]))
    doc = nlp(text)
    alone = vectors(nlp, [doc[:4].text if "stride" in str(getter) else doc[:5].text])[0]
    assert np.allclose(found[:3], alone[:3], atol=1e-5)
    assert first in text and second in text


# Training


def test_one_update_moves_the_adapter_at_once(make_base):
    """nlp.update steps each component before the next one is updated; the adapter's step waits for its gradient."""
    nlp = build(make_base())
    data = examples(nlp)
    nlp.initialize(lambda: data)
    before = adapter(nlp)
    nlp.update(data, sgd=SGD(0.1))
    assert moved(before, adapter(nlp))
    assert all(parameter.grad is None for parameter in backbone(nlp).trainable().values())


@pytest.mark.parametrize("silent", ["frozen", "without annotation"])
def test_a_silent_last_listener_does_not_swallow_the_gradients_of_others(make_base, silent):
    nlp = build(make_base())
    data = examples(nlp)
    nlp.initialize(lambda: data)
    if silent == "without annotation":
        for example in data:
            example.reference.cats = {}
    before = adapter(nlp)
    nlp.update(data, sgd=False, exclude=["textcat"] if silent == "frozen" else [])
    nlp.get_pipe("transformer").finish_update(SGD(0.1))
    assert moved(before, adapter(nlp))


@pytest.mark.parametrize("what", ["predict", "to_disk", "to_bytes", "use_params"])
def test_no_step_is_lost_where_a_listener_is_frozen(make_base, tmp_path, what):
    nlp = build(make_base())
    data = examples(nlp)
    nlp.initialize(lambda: data)
    before = adapter(nlp)
    nlp.update(data, sgd=SGD(0.1), exclude=["textcat"])
    if what == "predict":
        nlp("one")
    elif what == "to_disk":
        nlp.to_disk(tmp_path / "nlp")
        nlp = spacy.load(tmp_path / "nlp")
    elif what == "to_bytes":
        stored = nlp.to_bytes()
        nlp = build(make_base()).from_bytes(stored)
    else:
        with nlp.use_params({(0, "W"): None}):
            pass
    assert moved(before, adapter(nlp))


def test_gradients_add_up_over_parts_of_a_batch(make_base):
    """With `accumulate_gradient`, two halves and one step equal one step on the whole batch. Heads are not changed."""
    found = []
    for parts in (1, 2):
        fix_random_seed(0)
        nlp = build(make_base(), heads=("ner",), lora={"dropout": 0.0})
        data = examples(nlp)
        nlp.initialize(lambda data=data: data)
        size = len(data) // parts
        for start in range(0, len(data), size):
            nlp.update(data[start : start + size], sgd=False)
        nlp.get_pipe("transformer").finish_update(SGD(0.1))
        found.append(adapter(nlp))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_a_frozen_transformer_annotates_and_stays_as_it_is(make_base):
    nlp = trained(make_base())
    data = examples(nlp)
    before = adapter(nlp)
    head = nlp.get_pipe("textcat").model.to_bytes()
    for _ in range(2):
        nlp.update(data, sgd=Adam(0.01), exclude=["transformer"], annotates=["transformer"])
    assert not moved(before, adapter(nlp))
    assert nlp.get_pipe("textcat").model.to_bytes() != head


@pytest.mark.parametrize(("factor", "moves"), [(0.0, False), (1.0, True)])
def test_grad_factor(make_base, factor, moves):
    nlp = build(make_base(), heads=())
    head = {**TEXTCAT, "tok2vec": {**LISTENER, "grad_factor": factor}}
    nlp.add_pipe("textcat", config={"model": head})
    data = examples(nlp)
    nlp.initialize(lambda: data)
    before = adapter(nlp)
    for _ in range(2):
        nlp.update(data, sgd=SGD(0.1))
    assert moved(before, adapter(nlp)) == moves


def test_heads_first(make_base):
    nlp = build(make_base(), heads_first=2)
    data = examples(nlp)
    optimizer = Adam(0.01)
    nlp.initialize(lambda: data)
    before, head = adapter(nlp), nlp.get_pipe("textcat").model.to_bytes()
    for _ in range(2):
        nlp.update(data, sgd=optimizer)
    assert not moved(before, adapter(nlp))
    assert nlp.get_pipe("textcat").model.to_bytes() != head
    nlp.update(data, sgd=optimizer)
    assert moved(before, adapter(nlp))


@pytest.mark.parametrize("empty", [[0], [0, 3], [0, 1, 2, 3]])
def test_training_with_empty_documents(make_base, empty):
    nlp = build(make_base())
    data = examples(nlp)
    nlp.initialize(lambda: data)
    for i in empty:
        data[i] = Example(nlp.make_doc(""), nlp.make_doc(""))
    losses = nlp.update(data, sgd=Adam(0.01), losses={})
    assert all(np.isfinite(value) for value in losses.values())


@pytest.mark.parametrize("own", [True, False])
def test_rehearsal(make_base, own):
    """A component with its own backbone rehearses with its adapter; a listening one with the existing vectors."""
    nlp = trained(make_base())
    if own:
        for head in ("ner", "textcat"):
            nlp.replace_listeners("transformer", head, ["model.tok2vec"])
    optimizer = nlp.resume_training(sgd=Adam(0.01))
    data = examples(nlp)
    nlp.update(data, sgd=optimizer, exclude=[] if own else ["transformer"], annotates=["transformer"])
    for head in ("ner", "textcat"):
        shared, before = adapter(nlp), nlp.get_pipe(head).model.to_bytes()
        raw = [Example(nlp.make_doc(text), nlp.make_doc(text)) for text in TEXTS]
        others = [name for name in nlp.pipe_names if name != head]
        if own:
            values = [value.clone() for value in inner(nlp, head).shims[0].backbone.trainable().values()]
        else:
            with pytest.raises(ListenerError, match=f"'{head}' listens .* nlp.rehearse does not run the transformer"):
                nlp.rehearse(raw, sgd=optimizer, exclude=others)
            for example in raw:
                nlp.get_pipe("transformer")(example.predicted)
        losses = nlp.rehearse(raw, sgd=optimizer, exclude=others)
        assert np.isfinite(losses[head])
        assert nlp.get_pipe(head).model.to_bytes() != before
        assert not moved(shared, adapter(nlp))
        if own:
            assert moved(values, list(inner(nlp, head).shims[0].backbone.trainable().values()))
            # The gradient has been consumed.
            assert all(p.grad is None for p in inner(nlp, head).shims[0].backbone.trainable().values())


@pytest.mark.parametrize("left_out", [(), ("textcat",)])
def test_rehearsal_between_updates(make_base, left_out):
    """A component that took no part in the last update still holds the transformer's output for it."""
    nlp = trained(make_base())
    optimizer = nlp.resume_training(sgd=Adam(0.01))
    for _ in range(2):
        nlp.update(examples(nlp), sgd=optimizer, exclude=left_out)
        raw = [Example(nlp.make_doc(text), nlp.make_doc(text)) for text in TEXTS[:2]]
        with pytest.raises(
            ListenerError, match=r"nlp\.rehearse does not run the transformer: run it over the documents first"
        ):
            nlp.rehearse(raw, sgd=optimizer)
        for example in raw:
            nlp.get_pipe("transformer")(example.predicted)
        assert all(np.isfinite(value) for value in nlp.rehearse(raw, sgd=optimizer).values())


@pytest.mark.parametrize("failing", ["transformer", "labeler"])
def test_a_batch_that_fails_goes_to_the_error_handler(make_base, monkeypatch, failing):
    nlp = build(make_base(), heads=())
    nlp.add_pipe("sequence_labeler", name="labeler")
    train(nlp, 1)
    pipe = nlp.get_pipe(failing)
    predict = type(pipe).predict

    def fail(self, docs):
        docs = list(docs)
        if any("rain" in doc.text for doc in docs):
            raise RuntimeError("rain")
        return predict(self, docs)

    monkeypatch.setattr(type(pipe), "predict", fail)
    with pytest.raises(RuntimeError, match="rain"):
        list(nlp.pipe(TEXTS, batch_size=1))
    seen = []
    nlp.set_error_handler(lambda name, proc, docs, error: seen.extend((name, doc.text, str(error)) for doc in docs))
    rainy = [text for text in TEXTS if "rain" in text]
    kept = [doc.text for doc in nlp.pipe(TEXTS, batch_size=1)]
    assert rainy and kept == [text for text in TEXTS if text not in rainy]
    assert seen == [(failing, text, "rain") for text in rainy]


def test_loading_shows_no_progress(make_base, tmp_path, capfd):
    pipeline = tmp_path / "p"
    # With a base that nothing else uses, because one that is in memory is not read.
    trained(make_base(seed=7), heads=()).to_disk(pipeline)
    gc.collect()
    bars = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    try:
        capfd.readouterr()
        spacy.load(pipeline)
        shown = "".join(capfd.readouterr())
        assert "%" not in shown and "Loading" not in shown
        assert logging.is_progress_bar_enabled()
    finally:
        (logging.enable_progress_bar if bars else logging.disable_progress_bar)()


@pytest.mark.slow
def test_a_pipeline_without_an_adapter_runs_without_peft(make_base, tmp_path):
    """Importing peft takes seconds."""
    trained(make_base(), lora=None).to_disk(tmp_path / "p")
    script = f"import spacy, sys; doc = spacy.load({str(tmp_path / 'p')!r})({TEXTS[0]!r}); " + (
        "print(len(doc._.trf_data.model_output.last_hidden_state), *{'peft', 'bitsandbytes'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]


# Several pipelines


def test_two_transformers_each_with_their_own_listener(make_base):
    nlp = spacy.blank("en")
    for name, family, head in (("one", "llama", "ner"), ("two", "gpt2", "textcat")):
        model = {"@architectures": "spacy-lsbillm.BiLLMModel.v1", "name": str(make_base(family))}
        nlp.add_pipe("billm_transformer", name=name, config={"model": model})
        nlp.add_pipe(
            head,
            config={"model": {**{"ner": NER, "textcat": TEXTCAT}[head], "tok2vec": {**LISTENER, "upstream": name}}},
        )
    train(nlp, 2)
    assert nlp.get_pipe("one").listening_components == ["ner"]
    assert nlp.get_pipe("two").listening_components == ["textcat"]
    before = adapter(nlp, "one"), adapter(nlp, "two")
    nlp.update(examples(nlp), sgd=Adam(0.01))
    assert moved(before[0], adapter(nlp, "one"))
    assert moved(before[1], adapter(nlp, "two"))


# Listeners replaced by their own backbone


def labelled(nlp):
    return [(doc.cats, [(ent.text, ent.label_) for ent in doc.ents]) for doc in nlp.pipe(TEXTS)]


def base_pointers(model):
    return {p.data_ptr() for p in model.shims[0].backbone.model.parameters() if not p.requires_grad}


def inner(nlp, pipe):
    """The backbone's model inside a component."""
    (model,) = [node for node in nlp.get_pipe(pipe).model.walk() if node.name == "billm"]
    return model


@pytest.mark.parametrize("store_base", ["reference", "copy"])
def test_replaced_listeners_share_the_base_and_store_it_once(make_base, tmp_path, store_base):
    nlp = trained(make_base(), steps=30, store_base=store_base)
    expected = labelled(nlp)
    for pipe in ("ner", "textcat"):
        nlp.replace_listeners("transformer", pipe, ["model.tok2vec"])
    assert nlp.get_pipe("transformer").listeners == []
    assert base_pointers(inner(nlp, "ner")) == base_pointers(nlp.get_pipe("transformer").model)
    nlp.to_disk(tmp_path / "pipeline")
    assert len(list((tmp_path / "pipeline").rglob("model.safetensors"))) == (store_base == "copy")
    weights = sum(p.numel() * p.element_size() for p in backbone(nlp).causal_lm.parameters() if not p.requires_grad)
    stored = sum(
        path.stat().st_size for pipe in ("ner", "textcat") for path in [tmp_path / "pipeline" / pipe / "model"]
    )
    assert stored < 2 * weights
    again = spacy.load(tmp_path / "pipeline")
    again.to_disk(tmp_path / "again")
    # Adapters over a base that several pipelines share are not folded in, so the last digits differ.
    for other in (nlp, again, spacy.load(tmp_path / "again")):
        for (cats, ents), (expected_cats, expected_ents) in zip(labelled(other), expected, strict=True):
            assert ents == expected_ents and cats == pytest.approx(expected_cats, abs=1e-4)


def test_replaced_listeners_learn_on_their_own(make_base):
    nlp = trained(make_base())
    nlp.replace_listeners("transformer", "ner", ["model.tok2vec"])
    data = examples(nlp)
    own = [value.detach().clone() for value in inner(nlp, "ner").shims[0].backbone.trainable().values()]
    shared = adapter(nlp)
    nlp.update(data, sgd=Adam(0.01), exclude=["transformer", "textcat"])
    assert not moved(shared, adapter(nlp))
    assert moved(own, list(inner(nlp, "ner").shims[0].backbone.trainable().values()))


def test_replace_listeners_names_what_is_wrong(make_base):
    nlp = trained(make_base())
    for arguments in (("transformer", "ner", ["model.yolo"]), ("transformer", "parser", ["model.tok2vec"])):
        with pytest.raises(ValueError, match=r"E886|E889"):
            nlp.replace_listeners(*arguments)
    with pytest.raises(StorageError, match="merged"):
        trained(make_base(), store_base="merged").replace_listeners("transformer", "ner", ["model.tok2vec"])


def test_a_sourced_component_with_replaced_listeners(make_base, tmp_path):
    """As in a training config with `source` and `replace_listeners`, beside a new transformer."""
    source = trained(make_base(), steps=30)
    source.to_disk(tmp_path / "source")
    expected = [doc.cats for doc in source.pipe(TEXTS)]
    config = {
        "nlp": {"lang": source.lang, "pipeline": ["transformer", "ner", "textcat"]},
        "components": {
            "transformer": {
                "factory": "billm_transformer",
                "model": {"@architectures": "spacy-lsbillm.BiLLMModel.v1", "name": str(make_base(seed=1))},
            },
            "ner": {"factory": "ner", "model": NER},
            "textcat": {"source": str(tmp_path / "source"), "replace_listeners": ["model.tok2vec"]},
        },
    }
    nlp = spacy.util.load_model_from_config(Config(config), auto_fill=True)
    data = examples(nlp)
    with nlp.select_pipes(disable=["textcat"]):
        nlp.initialize(lambda: data)
    optimizer = Adam(0.01)
    for _ in range(3):
        nlp.update(data, sgd=optimizer, exclude=["textcat"])
    found = [doc.cats for doc in nlp.pipe(TEXTS)]
    for one, other in zip(expected, found, strict=True):
        assert other == pytest.approx(one, abs=1e-5)


def test_a_backbone_inside_a_component_from_the_start(make_base, tmp_path):
    nlp = spacy.blank("en")
    transformer = {"@architectures": "spacy-lsbillm.BiLLMModel.v1", "name": str(make_base())}
    tok2vec = {
        "@architectures": "spacy-lsbillm.Tok2VecBiLLM.v1",
        "transformer": transformer,
        "pooling": {"@layers": "reduce_mean.v1"},
    }
    nlp.add_pipe("textcat", config={"model": {**TEXTCAT, "tok2vec": tok2vec}})
    data = examples(nlp)
    nlp.initialize(lambda: data)
    first = nlp.update(data, sgd=Adam(0.0))["textcat"]
    optimizer = Adam(0.005)
    for _ in range(20):
        last = nlp.update(data, sgd=optimizer)["textcat"]
    assert last < first / 2
    nlp.to_disk(tmp_path / "pipeline")
    for one, other in zip(nlp.pipe(TEXTS), spacy.load(tmp_path / "pipeline").pipe(TEXTS), strict=True):
        assert other.cats == pytest.approx(one.cats, abs=1e-6)


# Every component that listens


def gold(nlp, parsed=True):
    words = ["will", "it", "rain", "in", "paris", "this", "weekend", "?"]
    reference = Doc(
        nlp.vocab,
        words=words,
        tags=list("ABCABCAB"),
        pos=["AUX", "PRON", "VERB", "ADP", "PROPN", "DET", "NOUN", "PUNCT"],
        morphs=["", "Case=Nom", "", "", "Number=Sing", "", "Number=Sing", ""],
        heads=[2, 2, 2, 2, 3, 6, 2, 2] if parsed else None,
        deps=["aux", "nsubj", "ROOT", "prep", "pobj", "det", "npadvmod", "punct"] if parsed else None,
        sent_starts=None if parsed else [True, False, False, False, True, False, False, False],
        ents=["O", "O", "O", "O", "B-city", "O", "O", "O"],
    )
    reference.cats = {"weather": 1.0, "music": 0.0}
    reference.spans["sc"] = [Span(reference, 4, 5, label="city"), Span(reference, 5, 7, label="time")]
    return [Example(Doc(nlp.vocab, words=words), reference)]


LISTENING = {
    "ner": (lambda doc: [ent.label_ for ent in doc.ents], ["city"]),
    "textcat": (lambda doc: doc.cats["weather"] > 0.5, True),
    "textcat_multilabel": (lambda doc: doc.cats["weather"] > 0.5 > doc.cats["music"], True),
    "tagger": (lambda doc: "".join(token.tag_ for token in doc), "ABCABCAB"),
    "morphologizer": (lambda doc: doc[4].pos_, "PROPN"),
    "parser": (lambda doc: [token.head.i for token in doc][:4], [2, 2, 2, 2]),
    "senter": (lambda doc: [token.is_sent_start for token in doc][4], True),
    "spancat": (lambda doc: {span.label_ for span in doc.spans["sc"]}, {"city", "time"}),
    "spancat_singlelabel": (lambda doc: {span.label_ for span in doc.spans["sc"]}, {"city", "time"}),
    "span_finder": (lambda doc: {(4, 5), (5, 7)} <= {(s.start, s.end) for s in doc.spans["sc"]}, True),
}


@pytest.mark.parametrize("factory", LISTENING)
def test_every_component_listens_learns_saves_and_loads(make_base, tmp_path, factory):
    fix_random_seed(0)
    nlp = build(make_base(), heads=(), depth=2)
    nlp.add_pipe(factory)
    defaults = nlp.get_pipe_config(factory)
    nlp.remove_pipe(factory)
    place = defaults["model"]
    while "tok2vec" not in place:
        place = place["scorer"] if "tok2vec" in place.get("scorer", {}) else next(iter(place.values()))
    place["tok2vec"] = LISTENER
    if factory == "textcat":
        defaults["model"] = TEXTCAT
    if factory == "textcat_multilabel":
        defaults["model"] = {**TEXTCAT, "exclusive_classes": False}
    # spaCy drops rare actions of the parser, and here all of them are rare.
    nlp.add_pipe(
        factory, config={"model": defaults["model"], **({"min_action_freq": 1} if factory == "parser" else {})}
    )
    data = gold(nlp, parsed=factory == "parser")
    nlp.initialize(lambda: data)
    assert nlp.get_pipe("transformer").listening_components == [factory]
    before = adapter(nlp)
    optimizer = Adam(0.005)
    for _ in range(60):
        nlp.update(data, sgd=optimizer)
    assert moved(before, adapter(nlp))
    read, expected = LISTENING[factory]
    words = [token.text for token in data[0].reference]
    assert read(nlp(Doc(nlp.vocab, words=words))) == expected
    nlp.to_disk(tmp_path / "pipeline")
    loaded = spacy.load(tmp_path / "pipeline")
    assert read(loaded(Doc(loaded.vocab, words=words))) == expected


# One vector per piece


def test_pieces_as_spacy_transformers_has_them(make_base):
    """Their means over the alignment are the token vectors, also over windows, and the pieces are those of the text."""
    texts = [*TEXTS, "", " ".join(TEXTS * 3)]
    tokens, pieces = (trained(make_base(), steps=2, window=16, output=output) for output in ("tokens", "pieces"))
    for doc, expected in zip(pieces.pipe(texts), tokens.pipe(texts), strict=True):
        data = doc._.trf_data
        if not len(doc):
            assert data.model_output == {}
            continue
        states = data.model_output.last_hidden_state[0]
        assert "".join(data.wordpieces.strings[0]) == doc.text.replace(" ", "Ġ").replace("é", "Ã©")
        assert len(states) == len(data.wordpieces.strings[0]) == data.wordpieces.input_ids.shape[1]
        ends = np.cumsum(data.align.lengths)
        means = [
            states[data.align.dataXd[end - n : end]].mean(0) for end, n in zip(ends, data.align.lengths, strict=True)
        ]
        assert np.allclose(means, expected._.trf_data.model_output.last_hidden_state[0], atol=1e-4)


def test_pieces_train_as_tokens_do(make_base):
    """With mean pooling in the listener, the gradients must be the same, also with an empty document in the batch."""
    found = []
    for output in ("tokens", "pieces"):
        fix_random_seed(0)
        nlp = build(make_base(), lora={"dropout": 0.0}, output=output)
        data = examples(nlp)
        nlp.initialize(lambda data=data: data)
        data.insert(1, Example(nlp.make_doc(""), nlp.make_doc("")))
        nlp.update(data, sgd=SGD(0.1))
        found.append(adapter(nlp))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("layer", "place"), [("first_piece", 0), ("last_piece", -1)])
def test_one_piece_can_be_the_vector(make_base, layer, place):
    nlp = build(make_base(), heads=(), output="pieces")
    one = {**LISTENER, "pooling": {"@layers": f"spacy-lsbillm.{layer}.v1"}}
    nlp.add_pipe("textcat", config={"model": {**TEXTCAT, "tok2vec": one}})
    train(nlp, 2)
    doc = nlp("évening")
    listener = nlp.get_pipe("textcat").model.get_ref("tok2vec")
    states = doc._.trf_data.model_output.last_hidden_state[0]
    assert np.allclose(listener.predict([doc])[0][0], states[place], atol=1e-6)
    assert doc._.trf_data.align.lengths.tolist()[0] > 1


def test_a_choice_of_pieces_needs_pieces(make_base):
    nlp = build(make_base(), heads=())
    one = {**LISTENER, "pooling": {"@layers": "spacy-lsbillm.last_piece.v1"}}
    with pytest.raises(SettingError, match=r"'textcat' pools .* with 'last_piece', but .*output = .pieces"):
        nlp.add_pipe("textcat", config={"model": {**TEXTCAT, "tok2vec": one}})


@pytest.mark.parametrize("layer", ["first_piece", "last_piece"])
def test_tokens_without_pieces_have_a_zero_vector(layer):
    model = registry.layers.get(f"spacy-lsbillm.{layer}.v1")()
    data = np.arange(1, 11, dtype="f").reshape(5, 2)
    vectors, backprop = model.begin_update(Ragged(data, np.array([0, 2, 0, 3, 0], dtype="i")))
    expected = {"first_piece": [0, 2], "last_piece": [1, 4]}[layer]
    assert vectors.tolist() == [[0, 0], data[expected[0]].tolist(), [0, 0], data[expected[1]].tolist(), [0, 0]]
    gradient = backprop(np.full((5, 2), 7, dtype="f")).dataXd
    assert {i for i, row in enumerate(gradient) if row.all()} == set(expected)
    assert gradient.sum() == 2 * 2 * 7


def test_output_out_of_range():
    with pytest.raises(SettingError, match=r"output = 'piece'.*'tokens', 'pieces'"):
        build("nowhere", output="piece")
