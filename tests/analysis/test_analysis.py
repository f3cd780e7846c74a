"""How much labels depend on their right context: the ratio by hand, and models that see it or do not."""

import json

import numpy as np
import pytest
import spacy
from corpora import run, write_corpus
from heads import corpus, fit, labeler
from hypothesis import given
from hypothesis import strategies as st
from pipelines import build
from spacy.tokens import Doc, DocBin, Span

from spacy_lsbillm.analysis import right_context, right_side
from spacy_lsbillm.errors import SettingError

pytestmark = pytest.mark.any_stack

NLP = spacy.blank("en")


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(*[st.integers(0, n - 1)] * n)))
def test_the_ratio_is_that_of_arcs_counted_one_by_one(heads):
    """The heads need not form a tree for this."""
    n = len(heads)
    doc = Doc(NLP.vocab, words=["w"] * n)
    doc.from_array(["HEAD", "DEP"], np.array([[h - i, 1] for i, h in enumerate(heads)]).astype("uint64"))
    spans = [Span(doc, 0, (n + 1) // 2, label="a"), Span(doc, n - 1, n, label="b")]
    ends = [[] for _ in range(n)]
    for i, token in enumerate(doc):
        if token.head.i != i:
            ends[i].append(token.head.i)
            ends[token.head.i].append(i)
    found = right_side([(doc, spans)])
    total = [end for span in spans for i in range(span.start, span.end) for end in [(i, e) for e in ends[i]]]
    assert found.total == len(total)
    assert found.right == sum(e > i for i, e in total)
    assert found.by_label["b"].right == 0
    assert found.ratio == (None if not total else found.right / len(total))


def test_a_sentence_by_hand():
    """The arcs of "She lives in New York".

    New depends on York to its right; York depends on "in" to its left, and New is to its left.
    """
    doc = Doc(NLP.vocab, words=["She", "lives", "in", "New", "York"], heads=[1, 1, 1, 4, 2], deps=["d"] * 5)
    found = right_side([(doc, [Span(doc, 3, 5, label="city")])])
    assert (found.right, found.total) == (1, 3)


@pytest.fixture(scope="module")
def pipelines(make_base):
    """A labeler that sees both sides, and one that does not; a word's label depends on the word that follows."""
    made = {}
    for unmask in ("all", "none"):
        nlp = build(make_base(), heads=(), unmask=unmask)
        labeler(nlp)
        fit(nlp, corpus(nlp), steps=30)
        made[unmask] = nlp
    return made


def test_a_causal_model_does_not_look_right(pipelines):
    for unmask, nlp in pipelines.items():
        examples = [(example.predicted, list(example.reference.ents)) for example in corpus(nlp)]
        found = right_context(nlp, examples)
        assert found["inside gold spans"].tokens == 6
        assert found["outside"].tokens == sum(len(doc) for doc, _ in examples) - 6
        for change in found.values():
            if unmask == "none":
                assert change.distance == pytest.approx(0, abs=1e-4)
                assert change.whole == pytest.approx(change.cut, abs=1e-4)
            else:
                assert 0.001 < change.distance <= 1


def test_the_sample_is_no_larger_than_asked_for(pipelines):
    nlp = pipelines["all"]
    examples = [(example.predicted, list(example.reference.ents)) for example in corpus(nlp)]
    assert {kind: change.tokens for kind, change in right_context(nlp, examples, sample=3).items()} == {
        "inside gold spans": 3,
        "outside": 3,
    }


def analyze(*arguments, code=0):
    return " ".join(run("lsbillm", "analyze", *arguments, code=code).split())


def test_the_command(pipelines, tmp_path):
    path = write_corpus(tmp_path / "corpus.spacy")
    pipelines["all"].to_disk(tmp_path / "model")
    output = analyze(path, "--model", tmp_path / "model", "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert f"{found['dependency']['ratio']:.3f}" in output
    assert set(found["dependency"]["by_label"]) == {"artist", "city", "playlist"}
    assert found["right_context"]["inside gold spans"]["tokens"] == 24
    assert "CoNLL-2003 0.593" in output
    assert "right-side dependency ratio" in analyze(path, "--spans-key", "sc")


def test_bad_input(pipelines, tmp_path):
    doc = NLP.make_doc("no parse here")
    doc.ents = [Span(doc, 0, 1, label="x")]
    bare = tmp_path / "bare.spacy"
    DocBin(docs=[doc]).to_disk(bare)
    NLP.to_disk(tmp_path / "blank")
    for arguments, message in (
        ((tmp_path / "none.spacy",), "there is no corpus"),
        ((bare,), "the corpus has no parses. Name a pipeline that makes them"),
        ((bare, "--spans-key", "sc"), "no spans in doc.spans['sc']"),
        ((bare, "--parser", tmp_path / "blank"), "has no parser; it has"),
        ((bare, "--parser", "no_such"), "there is no pipeline 'no_such'"),
        ((bare, "--model", tmp_path / "blank"), "has no sequence_labeler"),
        ((bare, "--sample", "0"), "--sample 0 is not allowed"),
    ):
        assert message in analyze(*arguments, code=1)
    with pytest.raises(SettingError, match="no tokens"):
        right_context(pipelines["all"], [(NLP.make_doc(""), [])])
