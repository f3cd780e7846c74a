"""Empty documents, among others and alone, in every component that a config from `init-config` may have."""

import pytest
from corpora import make_docs
from pipelines import backbone
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import load_model_from_config
from thinc.api import Adam
from tiny import TEXTS

from spacy_lsbillm.training.config import CLASSIFIERS, KNOWN, training_config

pytestmark = pytest.mark.any_stack

HEADS = [(name, None) for name in KNOWN if name != "doc_cleaner"]
HEADS += [("textcat", pooling) for pooling in ("last", "mean", "max", "attention")] + [("textcat_multilabel", "mean")]
# Those with a model of ours.
OURS = ["sequence_labeler", "span_labeler", "textcat", "textcat_multilabel", "span_finder"]
AMONG = ["", TEXTS[0], "", "", TEXTS[1], ""]


def built(base, pipeline, pooling=None) -> Language:
    config = training_config(str(base), pipeline=pipeline, pooling=pooling)
    return load_model_from_config(config, auto_fill=True)


def example(doc) -> Example:
    return Example(Doc(doc.vocab, [token.text for token in doc], [bool(token.whitespace_) for token in doc]), doc)


def among(nlp, copies=1) -> list[Example]:
    """Gold documents with an empty one before, between and after them."""
    docs = [part for doc in make_docs() * copies for part in (Doc(nlp.vocab), doc)]
    return [example(doc) for doc in [*docs, Doc(nlp.vocab)]]


def content(doc):
    """What the components have written, with floats separated from the rest."""
    cats = {name: pytest.approx(value, abs=1e-5) for name, value in doc.cats.items()}
    return doc.to_json() | {"cats": cats}


@pytest.mark.parametrize(("component", "pooling"), HEADS)
def test_they_change_nothing(make_base, component, pooling):
    nlp = built(make_base(), [component], pooling)
    # A parser drops labels that are rare.
    nlp.initialize(lambda: among(nlp, copies=4 if component == "parser" else 1))
    optimizer = Adam(0.001)
    alone = [example(Doc(nlp.vocab)), example(Doc(nlp.vocab))]
    for batch in (among(nlp), alone, among(nlp)):
        nlp.update(batch, sgd=optimizer)
    filled, mixed = ([each for each in among(nlp) if empty or len(each.reference)] for empty in (False, True))
    without, within = nlp.evaluate(filled), nlp.evaluate(mixed)
    nlp.evaluate(alone)
    for name in training_weights(nlp):
        assert within[name] == pytest.approx(without[name], abs=1e-5)
    expected = [content(nlp(text)) for text in AMONG]
    for size in (2, 100):
        docs = list(nlp.pipe(AMONG, batch_size=size))
        assert [content(doc) for doc in docs] == expected
        if component in CLASSIFIERS:
            assert [any(doc.cats.values()) for doc in docs] == [bool(text) for text in AMONG]
    assert [content(doc) for doc in nlp.pipe(["", ""])] == [expected[0]] * 2


def training_weights(nlp):
    return [name for name, weight in nlp.config["training"]["score_weights"].items() if weight]


@pytest.mark.parametrize("component", OURS)
def test_a_replaced_listener_takes_them_too(make_base, component):
    nlp = built(make_base(), [component])
    nlp.initialize(lambda: among(nlp))
    nlp.replace_listeners("transformer", component, ["model.tok2vec"])
    optimizer = Adam(0.001)
    for batch in (among(nlp), [example(Doc(nlp.vocab))], among(nlp)):
        nlp.update(batch, sgd=optimizer)
    expected = [content(nlp(text)) for text in AMONG]
    assert [content(doc) for doc in nlp.pipe(AMONG)] == expected


@pytest.mark.parametrize("component", OURS)
def test_our_heads_are_initialised_behind_them(make_base, component):
    nlp = built(make_base(), [component])
    data = [example(Doc(nlp.vocab)) for _ in range(10)] + among(nlp)
    nlp.initialize(lambda: data)
    nlp.update(data, sgd=Adam(0.001))
    assert backbone(nlp).trainable()


def test_a_spancat_takes_what_a_span_finder_finds_in_them(make_base):
    nlp = built(make_base(), ["span_finder", "spancat"])
    nlp.initialize(lambda: among(nlp))
    nlp.update(among(nlp), sgd=Adam(0.001), annotates=["transformer", "span_finder"])
    assert [len(doc) for doc in nlp.pipe(AMONG)] == [len(nlp.make_doc(text)) for text in AMONG]
    assert len(list(nlp.pipe(["", ""]))) == 2
