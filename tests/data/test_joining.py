"""Joining sentences of a corpus to longer documents: what is joined, what is kept, and what is never joined."""

import json
import random
import warnings
from collections import defaultdict

import pytest
import spacy
from corpora import make_docs, run
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Corpus, Example
from spacy.util import fix_random_seed, registry

from spacy_lsbillm.data.joining import join, join_neighbours
from spacy_lsbillm.errors import DataError

pytestmark = pytest.mark.any_stack

NLP = spacy.blank("xx")


def plain(reference):
    words, spaces = [token.text for token in reference], [bool(token.whitespace_) for token in reference]
    return Example(Doc(reference.vocab, words=words, spaces=spaces), reference)


def sentence(n_words, document=None, cats=None):
    doc = Doc(NLP.vocab, words=[f"w{i}" for i in range(n_words)])
    doc.cats = cats or {}
    if document is not None:
        doc.user_data["document"] = document
    return plain(doc)


def read(path, **settings):
    return registry.readers.get("spacy-lsbillm.JoinedCorpus.v1")(path, **settings)


@pytest.fixture
def corpus(tmp_path):
    docs = []
    for number in range(60):
        docs += [Doc(NLP.vocab, words=[f"{number}", "a", "."][: 1 + number % 3])]
        docs[-1].user_data["document"] = str(number // 20)
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "train.spacy")
    return tmp_path / "train.spacy"


def test_what_tokens_and_spans_have_stays():
    docs = [Doc(NLP.vocab, words=["a", "b", "c"]), Doc(NLP.vocab, words=["Paris"]), NLP.make_doc("it rains. ok \n")]
    docs[0].set_ents([Span(docs[0], 0, 1, "x")], missing=[docs[0][2:3]])
    docs[1].ents = [Span(docs[1], 0, 1, "city")]
    docs[2].spans["sc"] = [Span(docs[2], 0, 2, "s"), Span(docs[2], 1, 3, "t")]
    docs[2][3].is_sent_start = True
    joined = join([plain(doc) for doc in docs])
    assert joined.reference.text == joined.predicted.text == "a b c Paris it rains. ok \n"
    assert [token.text for token in joined.predicted] == [token.text for doc in docs for token in doc]
    assert joined.get_aligned_ner() == ["U-x", "O", None, "U-city", None, None, None, None, "O"]
    assert [(span.start, span.end, span.label_) for span in joined.reference.spans["sc"]] == [(4, 6, "s"), (5, 7, "t")]
    assert [sent.text for sent in joined.reference.sents] == ["a b c", "Paris", "it rains.", "ok \n"]
    # The model receives no gold annotation.
    assert not joined.predicted.has_annotation("SENT_START") and not joined.predicted.ents


def test_a_parse_tags_and_classes_stay():
    docs = make_docs()[:1] * 2
    joined = join([plain(doc) for doc in docs]).reference
    size = len(docs[0])
    for start, doc in ((0, docs[0]), (size, docs[1])):
        for token, other in zip(doc, joined[start : start + size], strict=True):
            assert (token.tag_, token.dep_, str(token.morph)) == (other.tag_, other.dep_, str(other.morph))
            assert token.head.i + start == other.head.i
    assert joined.cats == docs[0].cats
    assert [sent.start for sent in joined.sents] == [0, size]


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.sampled_from([None, "a", "b"]), st.sampled_from([{}, {"x": 1.0}])), max_size=40
    ),
    st.integers(1, 20),
    st.integers(0, 20),
    st.integers(0, 3),
)
def test_neighbours_are_joined_within_one_document_up_to_the_length(rows, min_words, more, seed):
    max_words = min_words + more
    random.seed(seed)
    sentences = [sentence(*row) for row in rows]
    found = list(join_neighbours(sentences, min_words, max_words))
    ends = [sum(len(one.reference) for one in found[: i + 1]) for i in range(len(found))]
    assert ends[-1:] == [sum(row[0] for row in rows)][: len(ends)]
    assert [t.text for one in found for t in one.reference] == [t.text for one in sentences for t in one.reference]
    places = [sum(row[0] for row in rows[:i]) for i in range(len(rows) + 1)]
    for start, end in zip([0, *ends], ends, strict=False):
        inside = rows[places.index(start) : places.index(end)]
        assert end - start <= max_words or len(inside) == 1
        assert len({(row[1], str(row[2])) for row in inside}) == 1
        following = rows[places.index(end)] if end != places[-1] else None
        if end - start < min_words and following is not None:
            assert following[1:] != inside[-1][1:] or end - start + following[0] > max_words


def test_a_corpus_is_joined_anew_in_each_reading_and_the_same_with_a_seed(corpus):
    reader = read(corpus, min_words=1, max_words=12)
    lengths = []
    for _ in range(2):
        fix_random_seed(3)
        lengths.append([[len(example.reference) for example in reader(NLP)] for _ in range(3)])
    first, second = lengths
    assert first == second
    assert first[0] != first[1] and len(set(first[0])) > 4
    together = defaultdict(list)
    for example in reader(NLP):
        together[example.reference.user_data["document"]] += [token.text for token in example.reference]
    gold = defaultdict(list)
    for example in Corpus(corpus)(NLP):
        gold[example.reference.user_data["document"]] += [token.text for token in example.reference]
    assert together == gold


def test_settings_that_cannot_be_are_refused(corpus):
    with pytest.raises(DataError, match="no file or folder 'None'"):
        read(None)
    for settings in ({"min_words": 0}, {"min_words": 9, "max_words": 8}, {"max_words": 1.5}):
        with pytest.raises(DataError, match=r"min_words = .*must be whole numbers, with 1 <= min_words <= max_words"):
            read(corpus, **settings)


# Documents in convert

MARKED = "-DOCSTART- -X- O O\n\na O\n\nb O\n\n\nc O\n\n-DOCSTART- -X- O O\n\nd O\n"
GROUPED = "a O\n\nb O\n\n\nc O\n \n\n\n\nd O\n\n\n"


def converted(source, output, *options):
    run("lsbillm", "convert", source, output, *options)
    return {doc.text: doc for doc in DocBin().from_disk(output / f"{source.stem}.spacy").get_docs(NLP.vocab)}


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        (MARKED, ["abc", "d"]),
        (GROUPED, ["ab", "c", "d"]),
        ("a O\n\nb O\n", ["ab"]),
        ("a O\n\n-DOCSTART- -X- O O\nb O\n", ["a", "b"]),
    ],
)
def test_convert_keeps_the_documents_of_columns(tmp_path, text, groups):
    """Documents are kept apart if the file marks them, or if they are in two files."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.conll").write_text(text)
        converted(tmp_path / f"{name}.conll", tmp_path)
    found = ["".join(t.text for t in example.reference) for example in read(tmp_path, min_words=99, max_words=99)(NLP)]
    assert found == groups * 2 or groups == ["ab"]
    # If a file marks no documents, its sentences may be joined with any of their neighbours.
    assert found == ["abab"] or groups != ["ab"]


def test_convert_keeps_the_document_that_a_line_names(tmp_path):
    rows = [{"text": "a", "of": 1}, {"text": "b", "of": 1, "label": "x"}, {"text": "c", "of": "2", "label": "x"}]
    source = tmp_path / "train.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        docs = converted(source, tmp_path, "--document-key", "of")
    assert [docs[name].user_data["document"] for name in "abc"] == ["1", "1", "2"]
    with pytest.warns(UserWarning, match="of is not read"):
        assert all("document" not in doc.user_data for doc in converted(source, tmp_path).values())
    for wrong in (None, "", 1.5, True):
        source.write_text(json.dumps({"text": "a", "of": wrong}))
        assert "'of' is" in run("lsbillm", "convert", source, tmp_path, "-d", "of", code=1)
    assert "cannot go with --choices" in run("lsbillm", "convert", source, tmp_path, "-d", "of", "-c", "joint", code=1)
