"""Lines of Prodigy, Doccano and Label Studio: read correctly, or left out and counted, or refused."""

import warnings

import pytest
import spacy
from corpora import run
from spacy.tokens import DocBin
from spacy.util import registry
from test_data import write

from spacy_lsbillm.data import Labels, make_doc, read_records
from spacy_lsbillm.errors import DataError

pytestmark = pytest.mark.any_stack

NLP = spacy.blank("en")
TEXT = "Ada met Bob"
ADA, BOB = {"start": 0, "end": 3, "label": "PER"}, {"start": 8, "end": 11, "label": "PER"}
OPTIONS = [{"id": "POS", "text": "good"}, {"id": "NEG", "text": "bad"}, {"id": 3, "text": "else"}]


def read(path, *rows, count=None, **options):
    """The documents of a file with these rows.

    count: The text of the warning about lines that are left out.
    """
    write(path, *rows)
    if count is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return [make_doc(NLP, record, Labels(), **options) for record in read_records(path)]
    with pytest.warns(UserWarning, match=count):
        return [make_doc(NLP, record, Labels(), **options) for record in read_records(path)]


def entities(doc):
    return [(ent.text, ent.label_) for ent in doc.ents]


def test_rejected_and_ignored_lines_are_no_gold(tmp_path):
    """With convert and with the corpus reader."""
    rows = [
        {"text": "great film", "label": "POS", "answer": "accept"},
        {"text": "awful film", "label": "POS", "answer": "reject"},
        {"text": "no film", "label": "POS", "answer": "ignore"},
        {"text": TEXT, "spans": [ADA], "answer": "accept"},
        {"text": TEXT, "spans": [BOB], "answer": "reject"},
        {"text": TEXT, "spans": [BOB], "answer": "ignore"},
    ]
    path = write(tmp_path / "train.jsonl", *rows)
    with pytest.warns(UserWarning, match="3 lines are left out: 2 ignored by the annotator, 1 rejected by"):
        run("lsbillm", "convert", path, tmp_path / "out")
    with pytest.warns(UserWarning, match="3 lines are left out"):
        streamed = [eg.reference for eg in registry.readers.get("spacy-lsbillm.JsonlCorpus.v1")(path)(NLP)]
    for docs in (streamed, list(DocBin().from_disk(tmp_path / "out" / "train.spacy").get_docs(NLP.vocab))):
        assert [(doc.text, doc.cats, entities(doc)) for doc in docs] == [
            ("great film", {"POS": 1.0}, []),
            ("awful film", {"POS": 0.0}, []),
            (TEXT, {}, [("Ada", "PER")]),
        ]
    # The warning also comes if the reader stops before the end, and left-out lines do not count towards the limit.
    with pytest.warns(UserWarning, match="1 lines are left out: 1 ignored"):
        streamed = registry.readers.get("spacy-lsbillm.JsonlCorpus.v1")(path, labels=[], limit=3)(NLP)
        assert [eg.text for eg in streamed] == ["great film", "awful film", TEXT]


def test_a_file_of_nothing_but_rejected_lines(tmp_path):
    path = write(tmp_path / "train.jsonl", {"text": TEXT, "spans": [ADA], "answer": "reject"})
    with pytest.warns(UserWarning, match="1 rejected"):
        assert "train.jsonl holds no document" in " ".join(
            run("lsbillm", "convert", path, tmp_path / "out", code=1).split()
        )


def test_a_decision_about_one_class_says_nothing_of_the_others(tmp_path):
    docs = read(
        tmp_path / "a.jsonl",
        {"text": "film", "label": "GOOD", "answer": "accept"},
        {"text": "film", "label": "LONG", "answer": "accept", "_view_id": "classification"},
        {"text": "film", "label": "DULL", "answer": "reject"},
    )
    assert [doc.cats for doc in docs] == [{"GOOD": 1.0}, {"LONG": 1.0}, {"DULL": 0.0}]


@pytest.mark.parametrize(
    "more", [{"spans": [ADA]}, {"entities": [[0, 3, "PER"]]}, {"options": OPTIONS, "accept": ["POS"]}]
)
def test_a_line_with_a_class_and_more_is_rejected_as_a_whole(tmp_path, more):
    row = {"text": TEXT, "label": "GOOD", "answer": "reject", **more}
    assert read(tmp_path / "a.jsonl", row, count="1 rejected") == []


@pytest.mark.parametrize(
    ("accept", "cats"),
    [
        (["POS"], {"POS": 1, "NEG": 0, "3": 0}),
        (["NEG", 3], {"POS": 0, "NEG": 1, "3": 1}),
        ([], {"POS": 0, "NEG": 0, "3": 0}),
    ],
)
def test_chosen_options_are_the_classes(tmp_path, accept, cats):
    row = {"text": "film", "options": OPTIONS, "accept": accept, "answer": "accept", "_view_id": "choice"}
    assert [doc.cats for doc in read(tmp_path / "a.jsonl", row)] == [cats]
    assert read(tmp_path / "b.jsonl", row | {"answer": "reject"}, count="1 rejected") == []


def test_tokens_as_objects(tmp_path):
    text = "Ada  met\nBob"
    tokens = [
        {"text": token.text, "start": token.idx, "end": token.idx + len(token), "id": token.i, "ws": False}
        for token in NLP(text)
    ]
    row = {"text": text, "tokens": tokens, "spans": [{**ADA, "token_start": 0, "token_end": 0}], "answer": "accept"}
    (doc,) = read(tmp_path / "a.jsonl", row)
    assert [token.text for token in doc] == [token["text"] for token in tokens]
    assert doc.text == text
    assert entities(doc) == [("Ada", "PER")]


@pytest.mark.parametrize("marked", [{"_view_id": "ner"}, {"_is_binary": True}])
def test_a_decision_about_one_span_says_nothing_of_the_other_tokens(tmp_path, marked):
    row = {"text": TEXT, "spans": [ADA], "answer": "accept", **marked}
    (doc,) = read(tmp_path / "a.jsonl", row)
    assert [token.ent_iob_ for token in doc] == ["B", "", ""]
    (doc,) = read(tmp_path / "a.jsonl", {**row, "_view_id": "ner_manual", "_is_binary": False})
    assert [token.ent_iob_ for token in doc] == ["B", "O", "O"]
    with pytest.raises(
        DataError, match=r"line 1: the token 'met' has no annotation, which doc\.spans cannot represent"
    ):
        read(tmp_path / "a.jsonl", row, spans_key="sc")


def test_spans_that_were_only_shown_are_no_gold(tmp_path):
    """Prodigy highlights matches of its patterns beside a question about the text."""
    row = {"text": TEXT, "label": "PEOPLE", "spans": [ADA], "answer": "accept", "_view_id": "classification"}
    (doc,) = read(tmp_path / "a.jsonl", row)
    assert doc.cats == {"PEOPLE": 1.0}
    assert not doc.has_annotation("ENT_IOB")


@pytest.mark.parametrize(
    "row",
    [
        {"label": [[0, 3, "PER"]]},
        {"labels": [[0, 3, "PER"]]},
        {"entities": [{"id": 4, "label": "PER", "start_offset": 0, "end_offset": 3}]},
        {"label": [{"start": 0, "end": 3, "text": "Ada", "labels": ["PER"]}]},
    ],
)
def test_spans_of_other_tools(tmp_path, row):
    """A line of the same file without any spans has none, rather than none of some classes."""
    (key,) = row
    docs = read(tmp_path / "a.jsonl", {"text": "nobody", key: []}, {"text": TEXT, **row}, {"text": "here", key: []})
    assert [entities(doc) for doc in docs] == [[], [("Ada", "PER")], []]
    assert all(doc.has_annotation("ENT_IOB") and doc.cats == {} for doc in docs)


def test_classes_of_other_tools(tmp_path):
    docs = read(tmp_path / "a.jsonl", {"text": "a", "label": ["x", "y"]}, {"text": "b", "label": {"choices": ["x"]}})
    assert [doc.cats for doc in docs] == [{"x": 1, "y": 1}, {"x": 1}]
    assert not docs[0].has_annotation("ENT_IOB")


def test_a_span_with_several_labels_is_several(tmp_path):
    row = {"text": TEXT, "label": [{"start": 0, "end": 3, "text": "Ada", "labels": ["PER", "POET"]}]}
    (doc,) = read(tmp_path / "a.jsonl", row, spans_key="sc")
    assert [span.label_ for span in doc.spans["sc"]] == ["PER", "POET"]


def test_what_nobody_has_approved_or_annotated_is_left_out(tmp_path):
    docs = read(
        tmp_path / "a.jsonl",
        {"text": "one", "label": [[0, 3, "NUM"]], "annotation_approver": None},
        {"text": "two", "label": [], "annotation_approver": None},
        {"text": "nothing", "label": [], "annotation_approver": "admin"},
        count="1 without any annotation or approval",
    )
    assert [doc.text for doc in docs] == ["one", "nothing"]


@pytest.mark.parametrize("key", ["_session_id", "_annotator_id", "annotator"])
def test_several_annotators(tmp_path, key):
    row = {"text": TEXT, "spans": [ADA, BOB], "answer": "accept"}
    one, other = {**row, key: "ann"}, {**row, key: "ben"}
    docs = read(tmp_path / "a.jsonl", one, {**other, "spans": [BOB, ADA]}, count="1 repeated by another annotator")
    assert [entities(doc) for doc in docs] == [[("Ada", "PER"), ("Bob", "PER")]]
    for changed in ({"spans": [ADA]}, {"answer": "reject"}):
        with pytest.raises(DataError, match="line 2: the annotator 'ben' gives another answer for 'Ada met Bob' than"):
            read(tmp_path / "a.jsonl", one, {**other, **changed})
    # Questions about different classes, or a class that one of them leaves open, do not contradict each other.
    question = {"text": "film", "answer": "accept"}
    docs = read(
        tmp_path / "b.jsonl",
        {**question, "label": "GOOD", key: "ann"},
        {**question, "label": "LONG", key: "ben", "answer": "reject"},
        {**question, "label": "GOOD", key: "cat", "answer": "ignore"},
        count="1 ignored",
    )
    assert [doc.cats for doc in docs] == [{"GOOD": 1.0}, {"LONG": 0.0}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a", "answer": "perhaps"}, "'answer' is 'perhaps'; it must be one of: accept, reject, ignore"),
        ({"text": "a", "answer": 1}, "'answer' is 1; it must be one of"),
        ({"text": "a", "accept": ["x"], "options": [{"id": "y"}]}, "'accept' is .*not a list of ids of the 'options'"),
        ({"text": "a", "accept": True}, "'accept' is True"),
        ({"data": {"text": "a"}, "annotations": []}, "annotation under 'annotations'.*JSON-MIN from Label Studio"),
        ({"text": "a", "annotations": [{"label": 1, "user": 1}]}, "names of the labels from Doccano"),
        ({"text": TEXT, "spans": [ADA], "_view_id": "pos_manual"}, "'pos_manual' are tags of words"),
        ({"text": TEXT, "spans": [ADA], "entities": [[0, 3, "PER"]]}, "has 'entities' and 'spans'"),
        ({"text": TEXT, "label": [[0, "PER"]]}, r"the span \[0, 'PER'\] does not have 'start'"),
        ({"text": TEXT, "spans": [{**ADA, "text": "Bob"}]}, "the span 0-3 is 'Ada' in the text, but 'Bob'.*UTF-16"),
        ({"text": "a 💩 Bob", "spans": [{"start": 5, "end": 8, "label": "PER", "text": "Bob"}]}, "needs 'start' and"),
    ],
)
def test_what_cannot_be_read_right_is_refused(tmp_path, row, message):
    with pytest.raises(DataError, match=f"a.jsonl, line 1.*{message}"):
        read(tmp_path / "a.jsonl", row)


def test_white_space_in_what_a_span_says_of_its_text_does_not_matter(tmp_path):
    spans = [{"start": 0, "end": 9, "label": "X", "text": "two\\nlines"}]
    (doc,) = read(tmp_path / "a.jsonl", {"text": "two\nlines", "spans": spans})
    assert entities(doc) == [("two\nlines", "X")]


@pytest.mark.parametrize(("name", "hint"), [("a.json", "Write one object per line"), ("a.ann", "Convert brat's files")])
def test_files_of_tools_that_are_not_read(tmp_path, name, hint):
    (tmp_path / name).write_text("[]")
    assert hint in " ".join(run("lsbillm", "convert", tmp_path / name, tmp_path / "out", code=1).split())
