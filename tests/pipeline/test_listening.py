"""Which component listens to which transformer, and what happens if one would hear nothing, or the wrong one."""

import numpy as np
import pytest
import spacy
from pipelines import GOLD, LISTENER, NER, TEXTCAT, build, train
from spacy.kb import InMemoryLookupKB
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.util import fix_random_seed, load_model_from_config
from thinc.api import Adam, Config
from tiny import TEXTS

from spacy_lsbillm.errors import ListenerError, SettingError

POOLED = {"@architectures": "spacy-lsbillm.PooledTextCat.v1", "exclusive_classes": True, "tok2vec": LISTENER}
LABELER = {"@architectures": "spacy-lsbillm.SequenceLabeler.v1", "tok2vec": LISTENER}
# Factory and model of each head, by its name.
HEADS = {
    "ner": ("ner", NER),
    "textcat": ("textcat", TEXTCAT),
    "pooled": ("textcat", POOLED),
    "labeler": ("sequence_labeler", LABELER),
}
OURS = ("pooled", "labeler")


@Language.component("merge_first_two")
def merge_first_two(doc):
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[:2])
    return doc


def with_heads(nlp, heads, upstream="*"):
    for head in heads:
        factory, model = HEADS[head]
        listener = {**LISTENER, "upstream": upstream}
        nlp.add_pipe(factory, name=head, config={"model": {**model, "tok2vec": listener}})
    return nlp


def settings(folder):
    return {"model": {"@architectures": "spacy-lsbillm.BiLLMModel.v1", "name": str(folder)}}


@pytest.fixture(scope="module")
def stored(make_base, tmp_path_factory):
    """A trained pipeline with all heads on disk, and one over another base."""
    folders = []
    for seed in (0, 1):
        fix_random_seed(seed)
        nlp = with_heads(build(make_base(seed=seed), heads=()), HEADS)
        train(nlp, 30, Adam(0.005))
        folders.append(tmp_path_factory.mktemp("stored") / f"pipeline_{seed}")
        nlp.to_disk(folders[-1])
    return folders


def found(nlp, head):
    return [
        (doc.ents if head in ("ner", "labeler") else sorted((k, round(v, 4)) for k, v in doc.cats.items())).__repr__()
        for doc in nlp.pipe(TEXTS)
    ]


# Nothing to hear


def only(head, folder):
    nlp = spacy.load(folder)
    nlp.select_pipes(enable=[head])
    return nlp


def without_transformer(head, folder):
    return spacy.load(folder, disable=["transformer"])


def sourced_alone(head, folder):
    nlp = spacy.blank("xx")
    nlp.add_pipe(head, source=spacy.load(folder))
    return nlp


def assembled_alone(head, folder):
    block = {"nlp": {"lang": "xx", "pipeline": [head]}, "components": {head: {"source": str(folder)}}}
    return load_model_from_config(Config(block), auto_fill=True)


def removed(head, folder):
    nlp = spacy.load(folder)
    nlp.remove_pipe("transformer")
    return nlp


def cleaned(head, folder):
    nlp = spacy.load(folder)
    nlp.add_pipe("doc_cleaner", config={"attrs": {"_.trf_data": None}}, after="transformer")
    return nlp


def excluded(head, folder):
    return spacy.load(folder, exclude=["transformer"])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("way", [only, without_transformer, sourced_alone, assembled_alone, removed, cleaned, excluded])
def test_a_head_that_hears_nothing_says_so(stored, way, head):
    if way is excluded and head not in OURS:
        pytest.skip("nothing of this package is loaded")
    nlp = way(head, stored[0])
    pipe = nlp.get_pipe(head)
    with pytest.raises(ListenerError, match=r"listens to 'transformer', which has not processed the document 'play"):
        nlp.select_pipes(enable=[name for name in nlp.pipe_names if name in (head, "doc_cleaner", "transformer")])
        nlp(TEXTS[1])
    with pytest.raises(ListenerError, match="replace_listeners"):
        pipe.predict([nlp.make_doc("one")])
    # Without tokens, nothing is missing.
    pipe.set_annotations([nlp.make_doc("")], pipe.predict([nlp.make_doc("")]))


def test_a_part_of_a_document_has_no_vectors(stored):
    nlp = spacy.load(stored[0])
    doc = nlp(TEXTS[1])
    for head in HEADS:
        with pytest.raises(ListenerError, match=f"'{head}' listens to 'transformer'"):
            nlp.get_pipe(head)(doc[:3].as_doc())


@pytest.mark.parametrize("head", HEADS)
def test_tokens_that_have_changed_since_are_refused(stored, head):
    """Vectors and tokens would not match, and spans would be off by one token."""
    nlp = spacy.load(stored[0])
    nlp.add_pipe("merge_first_two", after="transformer")
    nlp.select_pipes(enable=["transformer", "merge_first_two", head])
    with pytest.raises(ListenerError, match=rf"'{head}' listens .* processed 4 tokens .*; now it has 3.*merge"):
        nlp("play some jazz now")


@pytest.mark.parametrize("head", HEADS)
def test_training_without_vectors_says_what_to_do(stored, head):
    nlp = spacy.load(stored[0])
    text, (_, intent) = TEXTS[1], GOLD[1]
    cats = {label: float(label == intent) for label in nlp.get_pipe("textcat").labels}
    data = [Example.from_dict(nlp.make_doc(text), {"entities": [], "cats": cats})]
    with pytest.raises(ListenerError, match=rf"'{head}' listens to 'transformer', .* annotating_components"):
        nlp.update(data, exclude=["transformer", *(other for other in HEADS if other != head)])
    nlp.update(data, exclude=["transformer"], annotates=["transformer"])


def test_a_head_with_no_transformer_before_it_is_not_initialised(make_base):
    nlp = with_heads(build(make_base(), heads=()), ["labeler"], upstream="another")
    with pytest.raises(ListenerError, match="listens to 'another', but there is no loaded transformer of that name"):
        train(nlp)


# Several transformers


def test_without_a_name_the_nearest_is_heard(stored):
    """Two trained pipelines in one, each head after its own transformer."""
    nlp = spacy.blank("xx")
    for folder, name, head in ((stored[0], "first", "ner"), (stored[1], "second", "textcat")):
        source = spacy.load(folder)
        nlp.add_pipe("transformer", source=source, name=name)
        nlp.add_pipe(head, source=source)
    assert nlp.get_pipe("first").listening_components == ["ner"]
    assert nlp.get_pipe("second").listening_components == ["textcat"]
    for folder, head in ((stored[0], "ner"), (stored[1], "textcat")):
        assert found(nlp, head) == found(spacy.load(folder), head)


def fresh(stored, base):
    nlp = spacy.blank("xx")
    for name in ("transformer", "other"):
        nlp.add_pipe("billm_transformer", name=name, config=settings(base))
    return with_heads(nlp, ["ner"], upstream="transformer")


def inserted(stored, base):
    nlp = spacy.blank("xx")
    nlp.add_pipe("billm_transformer", name="transformer", config=settings(base))
    with_heads(nlp, ["ner"], upstream="transformer")
    nlp.add_pipe("billm_transformer", name="other", config=settings(base), before="ner")


def sourced(stored, base):
    source, nlp = spacy.load(stored[0]), spacy.blank("xx")
    nlp.add_pipe("transformer", source=source)
    nlp.add_pipe("transformer", source=spacy.load(stored[1]), name="other")
    nlp.add_pipe("ner", source=source)


def a_stock_one(stored, base):
    source, nlp = spacy.load(stored[0]), spacy.blank("xx")
    nlp.add_pipe("transformer", source=source)
    nlp.add_pipe("transformer", name="other")
    nlp.add_pipe("ner", source=source)


def frozen(stored, base):
    """A training config in which sourced components are frozen, so only the new transformer is initialised."""
    config = {
        "nlp": {"lang": "xx", "pipeline": ["transformer", "other", "ner"]},
        "components": {
            "transformer": {"source": str(stored[0])},
            "ner": {"source": str(stored[0])},
            "other": {"factory": "billm_transformer", **settings(base)},
        },
        "training": {"frozen_components": ["transformer", "ner"]},
    }
    load_model_from_config(Config(config), auto_fill=True)


@pytest.mark.parametrize("way", [fresh, inserted, sourced, a_stock_one, frozen])
def test_a_listener_behind_another_transformer_is_refused(stored, make_base, way):
    match = r"'ner' (listens to|was trained with) 'transformer', but is behind 'other'"
    with pytest.raises(ListenerError, match=match):
        way(stored, make_base())


def test_a_head_over_another_transformer_than_its_own_is_warned_of(stored):
    source = spacy.load(stored[0])
    nlp = spacy.blank("xx")
    nlp.add_pipe("transformer", source=spacy.load(stored[1]))
    with pytest.warns(UserWarning, match="'ner' was trained with another transformer than the 'transformer' before it"):
        nlp.add_pipe("ner", source=source)


def test_the_same_transformer_loaded_twice_is_the_same(stored, recwarn):
    nlp = spacy.blank("xx")
    nlp.add_pipe("transformer", source=spacy.load(stored[0]))
    nlp.add_pipe("ner", source=spacy.load(stored[0]))
    assert not [one for one in recwarn if "another transformer" in str(one.message)]
    assert found(nlp, "ner") == found(spacy.load(stored[0]), "ner")


# Entity linkers, which process copies of sentences


def linker_pipeline(base, tok2vec, transformer=False):
    """A pipeline with an entity linker.

    Its vectors must be as wide as the transformer's, because its model learns no other width through a listener.
    """
    nlp = build(base, heads=()) if transformer else spacy.blank("xx")
    model = {"@architectures": "spacy.EntityLinker.v2", "tok2vec": tok2vec}
    linker = nlp.add_pipe("entity_linker", config={"model": model, "incl_prior": False, "use_gold_ents": True})

    def make_kb(vocab):
        kb = InMemoryLookupKB(vocab, entity_vector_length=32)
        for i, entity in enumerate(("Q90", "Q830149")):
            kb.add_entity(entity, 1.0, np.eye(32)[i].tolist())
        kb.add_alias("paris", ["Q90", "Q830149"], [0.5, 0.5])
        return kb

    linker.set_kb(make_kb)
    return nlp


def linked(nlp):
    """Two sentences, each with a different paris."""
    data = []
    for words, entity in ((["fly", "to", "paris", "in", "france"], "Q90"), (["paris", "of", "texas"], "Q830149")):
        reference = Doc(nlp.vocab, words=words)
        at = words.index("paris")
        reference.set_ents([Span(reference, at, at + 1, label="city", kb_id=entity)])
        for token in reference:
            token.is_sent_start = token.i == 0
        data.append(Example(reference.copy(), reference))
    return data


def test_an_entity_linker_that_listens_is_refused(make_base):
    nlp = linker_pipeline(make_base(), LISTENER, transformer=True)
    data = linked(nlp)
    with pytest.raises(SettingError, match=r"'entity_linker' cannot listen to 'transformer'.*Tok2VecBiLLM"):
        nlp.initialize(lambda: data)


def test_an_entity_linker_has_a_transformer_of_its_own(make_base):
    fix_random_seed(0)
    own = {
        "@architectures": "spacy-lsbillm.Tok2VecBiLLM.v1",
        "transformer": settings(make_base())["model"],
        "pooling": {"@layers": "reduce_mean.v1"},
    }
    nlp = linker_pipeline(make_base(), own)
    data = linked(nlp)
    nlp.initialize(lambda: data)
    optimizer = Adam(0.01)
    for _ in range(40):
        nlp.update(linked(nlp), sgd=optimizer)
    docs = [example.reference for example in linked(nlp)]
    for doc in docs:
        gold = doc.ents[0].kb_id_
        doc.set_ents([Span(doc, doc.ents[0].start, doc.ents[0].end, label="city")])
        assert nlp.get_pipe("entity_linker")(doc).ents[0].kb_id_ == gold


# Token vectors that are passed on unchanged


def test_heads_get_token_vectors_as_pooling_would_give_them(stored):
    """Documents that were stored have spacy-transformers' own data, which is pooled."""
    nlp = spacy.load(stored[0])
    docs = list(nlp.pipe([*TEXTS, ""]))
    # Like a token without pieces.
    data = docs[1]._.trf_data
    data.model_output.last_hidden_state[0, 2] = 0.0
    data.align.lengths[2] = 0
    data.align.data = np.delete(data.align.data, 2)
    again = [Doc(nlp.vocab).from_bytes(doc.to_bytes()) for doc in docs]
    for head in HEADS:
        tok2vec = nlp.get_pipe(head).model.get_ref("tok2vec")
        *_, passing = (node for node in tok2vec.walk() if node.name == "trfs2arrays")
        results = []
        for some in (docs, again):
            vectors, backprop = passing([doc._.trf_data for doc in some], is_train=True)
            gradients = backprop([rows * 2 + 1 for rows in vectors])
            results.append((vectors, [data.model_output.last_hidden_state for data in gradients]))
        (one, back), (other, back_other) = results
        assert np.shares_memory(one[0], docs[0]._.trf_data.model_output.last_hidden_state)
        assert len(back) == len(back_other) == len(docs) - 1
        assert all(np.array_equal(a, b) for a, b in zip([*one, *back], [*other, *back_other], strict=True))
