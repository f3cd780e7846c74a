"""Documents that nobody has annotated with a class, beside others: they have no part in the loss of a classifier nor in
any score."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import spacy
from corpora import make_docs, run, write_config, write_corpus
from pipelines import GOLD, TEXTCAT, build
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.util import fix_random_seed, load_config, registry
from test_heads import CNN
from thinc.api import Adam
from tiny import TEXTS

from spacy_lsbillm.data.scoring import choice_score
from spacy_lsbillm.errors import SettingError
from spacy_lsbillm.search.probe import probe
from spacy_lsbillm.search.significance import counts_for
from spacy_lsbillm.search.trials import Subject
from spacy_lsbillm.training_config import training_config

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.cfg"))
OTHERS = ["set an alarm for nine", "the weather was fine when we went there", "who sings this song"]
LABELS = sorted({intent for _, intent in GOLD})
POOLINGS = [None, "last", "mean", "max", "attention"]


def example(nlp, text, cats) -> Example:
    reference = nlp.make_doc(text)
    reference.cats = cats
    return Example(nlp.make_doc(text), reference)


def labelled(nlp):
    pairs = zip(TEXTS, GOLD, strict=True)
    return [example(nlp, text, {name: float(name == intent) for name in LABELS}) for text, (_, intent) in pairs]


def classifier(nlp, component, pooling, tok2vec=CNN):
    """With the model and scorer that init-config gives it."""
    block = training_config("base", pipeline=[component], pooling=pooling)["components"][component]
    model = {**block["model"], "tok2vec": tok2vec}
    return nlp.add_pipe(component, config={"model": model, "scorer": block["scorer"]})


def trained(component, pooling, more=lambda nlp: []):
    """Classes of the texts after some steps over labelled documents, with more of them between."""
    fix_random_seed(0)
    nlp = spacy.blank("en")
    classifier(nlp, component, pooling)
    data, others = labelled(nlp), more(nlp)
    nlp.initialize(lambda: data + others)
    optimizer = Adam(0.01)
    for _ in range(5):
        nlp.update(others[:1] + data + others[1:], sgd=optimizer)
        if others:
            nlp.update(others, sgd=optimizer)
    return np.array([list(nlp(text).cats.values()) for text in TEXTS])


def without_cats(nlp):
    return [example(nlp, text, {}) for text in OTHERS]


def without_a_class(nlp):
    return [example(nlp, text, dict.fromkeys(LABELS, 0.0)) for text in OTHERS]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_textcat_does_not_learn_from_them(pooling):
    expected = trained("textcat", pooling)
    assert expected.max(axis=1).min() > 0.4
    for more in (without_cats, without_a_class):
        # With no gradient Adam still goes on as before, so that a batch of them alone is left out of the comparison.
        assert trained("textcat", pooling, more).argmax(axis=1).tolist() == expected.argmax(axis=1).tolist()
        assert gradient_of("textcat", pooling, more).any() == 0


def gradient_of(component, pooling, more):
    """What a head sends back to the token vectors of such documents, among others."""
    nlp = spacy.blank("en")
    pipe = classifier(nlp, component, pooling)
    data = more(nlp) + labelled(nlp)
    nlp.initialize(lambda: data)
    for _ in range(2):
        nlp.update(data, sgd=Adam(0.01))
    scores, backprop = pipe.model.begin_update([each.predicted for each in data])
    _, gradient = pipe.get_loss(data, scores)
    tok2vec, sent = pipe.model.get_ref("tok2vec"), []
    function = tok2vec._func

    def listening(model, docs, is_train):
        vectors, back = function(model, docs, is_train)
        return vectors, lambda d_vectors: sent.extend(d_vectors) or back(d_vectors)

    tok2vec._func = listening
    scores, backprop = pipe.model.begin_update([each.predicted for each in data])
    backprop(pipe.get_loss(data, scores)[1])
    assert all(rows.any() for rows in sent[len(OTHERS) :])
    return np.concatenate(sent[: len(OTHERS)])
