"""Documents without annotation for a class, beside others: they are left out of classifiers' losses and of scores."""

import warnings

import numpy as np
import pytest
import spacy
from corpora import make_docs, run, write_config, write_corpus
from heads import CNN
from pipelines import GOLD, TEXTCAT, build
from places import REPOSITORY
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.util import fix_random_seed, load_config, registry
from thinc.api import Adam
from tiny import TEXTS

from spacy_lsbillm.errors import SettingError
from spacy_lsbillm.pipeline.class_scorers import choice_score
from spacy_lsbillm.search.experiment import Experiment
from spacy_lsbillm.search.probe import probe
from spacy_lsbillm.search.significance import counts_for
from spacy_lsbillm.training.config import training_config

pytestmark = pytest.mark.any_stack

CONFIGS = sorted((REPOSITORY / "configs").glob("*.cfg"))
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
    """A classifier with the model and the scorer of init-config."""
    block = training_config("base", pipeline=[component], pooling=pooling)["components"][component]
    model = {**block["model"], "tok2vec": tok2vec}
    return nlp.add_pipe(component, config={"model": model, "scorer": block["scorer"]})


def trained(component, pooling, more=lambda nlp: []):
    """The predicted classes after some steps over labelled documents, with more documents in each batch."""
    fix_random_seed(0)
    nlp = spacy.blank("en")
    classifier(nlp, component, pooling)
    data, others = labelled(nlp), more(nlp)
    nlp.initialize(lambda: data + others)
    optimizer = Adam(0.01)
    for _ in range(8):
        nlp.update(others[:1] + data + others[1:], sgd=optimizer)
    return np.array([list(nlp(text).cats.values()) for text in TEXTS])


def without_cats(nlp):
    return [example(nlp, text, {}) for text in OTHERS]


def without_a_class(nlp):
    return [example(nlp, text, dict.fromkeys(LABELS, 0.0)) for text in OTHERS]


def empty(nlp):
    return [example(nlp, "", {"play": 1.0}) for _ in OTHERS]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_textcat_does_not_learn_from_them(pooling):
    expected = trained("textcat", pooling)
    assert expected.max(axis=1).min() > 0.4
    for more in (without_cats, without_a_class, empty):
        np.testing.assert_allclose(trained("textcat", pooling, more), expected, atol=1e-4)


@pytest.mark.parametrize("pooling", [None, "mean"])
def test_classes_that_do_not_exclude_each_other_may_all_be_missing(pooling):
    expected = trained("textcat_multilabel", pooling)
    for more in (without_cats, empty):
        np.testing.assert_allclose(trained("textcat_multilabel", pooling, more), expected, atol=1e-4)
    # A document that has none of the classes is annotated, and is learned.
    assert abs(trained("textcat_multilabel", pooling, without_a_class) - expected).max() > 0.01


def test_a_shared_transformer_does_not_learn_from_them(make_base):
    """The gradient that the head sends to the transformer for such a document is zero."""
    for pooling in (None, "mean"):
        nlp = build(make_base(num_hidden_layers=2), heads=(), lora={"r": 4, "dropout": 0.0})
        listener = TEXTCAT["tok2vec"]
        classifier(nlp, "textcat", pooling, listener)
        data = [*labelled(nlp), *without_cats(nlp), *empty(nlp)]
        nlp.initialize(lambda data=data: data)
        nlp.update(data, sgd=Adam(0.01))
        for batch, learns in ((data[:4], True), (data[4:], False)):
            losses = nlp.update(batch, sgd=False, losses={})
            assert (losses["transformer"] > 0) == learns


def test_a_trained_textcat_gets_another_class(tmp_path):
    nlp = spacy.blank("en")
    pipe = classifier(nlp, "textcat", None)
    data = labelled(nlp)
    nlp.initialize(lambda: data)
    nlp.update(data, sgd=Adam(0.01))
    before = nlp(TEXTS[0]).cats
    pipe.add_label("new")
    assert nlp(TEXTS[0]).cats == pytest.approx({**before, "new": 0.0}, abs=1e-4)
    data += [example(nlp, text, {"new": 1.0}) for text in OTHERS]
    for _ in range(40):
        nlp.update(data, sgd=Adam(0.01))
    nlp.to_disk(tmp_path)
    assert spacy.load(tmp_path)(OTHERS[0]).cats == pytest.approx(nlp(OTHERS[0]).cats)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configs_have_heads_and_scorers_that_leave_them_out(path):
    for block in load_config(path)["components"].values():
        if block["factory"] == "textcat":
            assert block["model"]["@architectures"].startswith("spacy-lsbillm.")
            assert block["scorer"]["@scorers"].startswith("spacy-lsbillm.")


# The warning


def test_a_textcat_that_would_learn_from_them_is_named(make_base):
    nlp = build(make_base(num_hidden_layers=2), heads=["textcat"])
    data = labelled(nlp) + without_cats(nlp)
    with pytest.warns(UserWarning, match=r"3 of 7 documents .* have no class in doc\.cats\. 'textcat' will learn"):
        nlp.initialize(lambda: data)
    with warnings.catch_warnings():
        # Not the warnings of libraries that one of them is out of date.
        warnings.simplefilter("error", UserWarning)
        nlp.initialize(lambda: data[:4])
        for component in ("textcat", "textcat_multilabel"):
            nlp = build(make_base(num_hidden_layers=2), heads=())
            classifier(nlp, component, None, TEXTCAT["tok2vec"])
            nlp.initialize(lambda: data)


# Scores


def scored(nlp, guesses):
    """The scores of examples, given as pairs of gold classes and predicted class."""
    found = []
    for number, (gold, guess) in enumerate(guesses):
        found.append(example(nlp, f"film {number}", gold))
        found[-1].predicted.cats = {name: 0.9 if name == guess else 0.05 for name in ("x", "y")}
    return found


ANNOTATED = [({"x": 1.0, "y": 0.0}, "x"), ({"x": 0.0, "y": 1.0}, "x"), ({"x": 0.0, "y": 1.0}, "y")]


@pytest.mark.parametrize("multi_label", [False, True])
def test_they_do_not_count_in_scores(multi_label):
    nlp = spacy.blank("en")
    score = registry.scorers.get("spacy-lsbillm.textcat_scorer.v1")(multi_label)
    settings = {"labels": ["x", "y"], "threshold": 0.5}
    expected = score(scored(nlp, ANNOTATED), **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert score(scored(nlp, [({}, "x"), *ANNOTATED, ({}, "y")]), **settings) == expected
    assert expected["cats_micro_f"] == pytest.approx(2 / 3)
    nothing = score(scored(nlp, [({}, "x")]), **settings)
    assert nothing.pop("cats_score_desc")
    assert set(nothing.values()) == {None}
    count = counts_for("cats_micro_f", 0.5 if multi_label else None)
    assert [count(one) for one in scored(nlp, [({}, "x"), *ANNOTATED])] == [(0, 0, 0), (1, 0, 0), (0, 1, 1), (1, 0, 0)]


def test_questions_without_an_answer_do_not_count():
    nlp = spacy.blank("en")
    examples = scored(nlp, [*ANNOTATED, ({}, "x")])
    for number, one in enumerate(examples):
        one.reference.user_data["question"] = number
    assert choice_score(examples, labels=["x", "y"])["cats_micro_f"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("score", ["ents_f", "spans_sc_f"])
def test_spans_of_a_document_that_nobody_has_annotated_do_not_count(score):
    doc = make_docs()[0]
    plain = Doc(doc.vocab, [token.text for token in doc], [bool(token.whitespace_) for token in doc])
    count = counts_for(score)
    assert count(Example(doc, plain)) == (0, 0, 0)
    assert count(Example(doc, doc.copy())) == (1, 0, 0)


@pytest.mark.parametrize("head", ["sequence_labeler", "textcat", "textcat_multilabel"])
def test_the_probe_leaves_them_out(make_base, tmp_path, head):
    docs = make_docs()
    plain = [Doc(doc.vocab, [token.text for token in doc], [bool(token.whitespace_) for token in doc]) for doc in docs]
    found = []
    for number, more in enumerate(([], plain * 3)):
        folder = tmp_path / str(number)
        folder.mkdir()
        DocBin(docs=docs + more).to_disk(folder / "corpus.spacy")
        config = write_config(folder / "c.cfg", folder / "corpus.spacy", make_base(num_hidden_layers=2), [head])
        found.append(probe(Experiment.of(load_config(config, interpolate=False)), ["all"], folder).scores["all"])
    assert found == [pytest.approx(1.0), pytest.approx(1.0)]


def test_the_probe_needs_annotation_in_both_corpora(make_base, tmp_path):
    corpus = write_corpus(tmp_path / "corpus.spacy", copies=1)
    DocBin(docs=[Doc(doc.vocab, [token.text for token in doc]) for doc in make_docs()]).to_disk(tmp_path / "no.spacy")
    config = write_config(tmp_path / "c.cfg", corpus, make_base(num_hidden_layers=2), ["textcat"])
    loaded = load_config(config, overrides={"paths.dev": str(tmp_path / "no.spacy")}, interpolate=False)
    with pytest.raises(SettingError, match="the development corpus has no labels that cats_micro_f would count"):
        probe(Experiment.of(loaded), ["all"], tmp_path)


def test_spacy_evaluates_a_corpus_without_classes(make_base, tmp_path):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    classifier(nlp, "textcat", "mean", TEXTCAT["tok2vec"])
    nlp.initialize(lambda: labelled(nlp))
    nlp.to_disk(tmp_path / "pipeline")
    DocBin(docs=[each.reference for each in without_cats(nlp)]).to_disk(tmp_path / "corpus.spacy")
    assert "TEXTCAT (macro F)   -" in run("evaluate", tmp_path / "pipeline", tmp_path / "corpus.spacy")
