"""Reading and writing annotated text: records, conversion, readers, multiple choice."""

import json
import warnings

import pytest
import spacy
from corpora import run
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin
from spacy.training import Corpus, Example
from spacy.util import registry

from spacy_lsbillm.data import Labels, Record, choice_records, make_doc, read_records
from spacy_lsbillm.data.documents import iob_spans
from spacy_lsbillm.errors import DataError
from spacy_lsbillm.pipeline.class_scorers import choice_score

pytestmark = pytest.mark.any_stack

ANY = spacy.blank("xx")
IOB = "play\tO\njazz\tB-genre\nby\tO\nmiles\tB-artist\ndavis\tI-artist\n\nit 's\tO\nParis\tB-city\n"


@pytest.fixture
def nlp():
    return spacy.blank("en")


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    return path


def doc_of(nlp, content, labels=(), **options):
    return make_doc(nlp, Record(content, "here"), Labels(tuple(labels)), **options)


def stored(path, nlp):
    return list(DocBin().from_disk(path).get_docs(nlp.vocab))


def test_iob_keeps_the_tokens_as_given(tmp_path, nlp):
    (tmp_path / "train.iob").write_text(IOB)
    output = run("lsbillm", "convert", tmp_path / "train.iob", tmp_path / "corpus")
    assert "train.spacy: 2 documents" in " ".join(output.split())
    docs = stored(tmp_path / "corpus" / "train.spacy", nlp)
    assert [[token.text for token in doc] for doc in docs] == [
        ["play", "jazz", "by", "miles", "davis"],
        ["it 's", "Paris"],
    ]
    assert [[(ent.text, ent.label_) for ent in doc.ents] for doc in docs] == [
        [("jazz", "genre"), ("miles davis", "artist")],
        [("Paris", "city")],
    ]
    # spaCy's own reader does not tokenise them again.
    for example, doc in zip(Corpus(tmp_path / "corpus")(nlp), docs, strict=True):
        assert [token.text for token in example.predicted] == [token.text for token in doc]


def test_files_with_spaces_or_more_columns_or_docstart(tmp_path):
    (tmp_path / "a.conll").write_text(
        "-DOCSTART- -X- O O\n\nU.N. NNP I-NP B-ORG\nsaid VBD I-VP O\n\n-DOCSTART- -X- O O\na X X O"
    )
    assert [record.content for record in read_records(tmp_path / "a.conll")] == [
        {"tokens": ["U.N.", "said"], "tags": ["B-ORG", "O"]},
        {"tokens": ["a"], "tags": ["O"]},
    ]


def test_every_kind_of_line(nlp):
    doc = doc_of(nlp, {"text": "I love it!", "label": "good"}, ["bad", "good"])
    assert doc.cats == {"bad": 0.0, "good": 1.0}
    assert [token.text for token in doc] == ["I", "love", "it", "!"]
    assert doc_of(nlp, {"text": "no", "labels": []}, ["bad"]).cats == {"bad": 0.0}
    assert doc_of(nlp, {"text": "no"}, ["bad"]).cats == {}
    doc = doc_of(nlp, {"text": "to  New York.", "spans": [{"start": 4, "end": 12, "label": "city"}]})
    assert [(ent.text, ent.label_) for ent in doc.ents] == [("New York", "city")]
    doc = doc_of(nlp, {"text": "to\n New York.", "tokens": ["to", "New", "York."], "tags": ["O", "B-x", "I-x"]})
    assert doc.text == "to\n New York."
    assert [(ent.text, ent.label_) for ent in doc.ents] == [("New York.", "x")]


def test_spans_that_overlap_go_under_a_key(nlp):
    spans = [{"start": 0, "end": 8, "label": "a"}, {"start": 4, "end": 13, "label": "b"}]
    doc = doc_of(nlp, {"text": "the very best", "spans": spans}, spans_key="sc")
    assert [(span.text, span.label_) for span in doc.spans["sc"]] == [("the very", "a"), ("very best", "b")]
    assert not doc.ents
    with pytest.raises(DataError, match=r"here: the spans 'the very' \(a\) and 'very best' \(b\) overlap.*--spans-key"):
        doc_of(nlp, {"text": "the very best", "spans": spans})


@given(st.lists(st.tuples(st.text("ab. é", min_size=1).filter(str.strip), st.text(" \n", max_size=2)), max_size=5))
def test_tokens_are_found_in_any_text(pairs):
    tokens = [token.strip() for token, _ in pairs]
    text = "".join(token + space for token, (_, space) in zip(tokens, pairs, strict=True))
    doc = doc_of(ANY, {"text": text, "tokens": tokens, "tags": ["B-x"] * len(tokens)})
    assert doc.text == text
    assert [ent.text for ent in doc.ents] == tokens


def test_classes_of_the_training_file_hold_for_all(tmp_path, nlp):
    write(tmp_path / "train.jsonl", {"text": "a", "labels": ["x", "y"]}, {"text": "b", "labels": []})
    write(tmp_path / "dev.jsonl", {"text": "c", "labels": ["y"]}, {"text": "d", "labels": ["z"]})
    with pytest.warns(UserWarning, match="dev.jsonl, line 2 has the class 'z', which the training file does not have"):
        run("lsbillm", "convert", tmp_path, tmp_path / "out")
    assert [doc.cats for doc in stored(tmp_path / "out" / "train.spacy", nlp)] == [{"x": 1, "y": 1}, {"x": 0, "y": 0}]
    assert [doc.cats for doc in stored(tmp_path / "out" / "dev.spacy", nlp)] == [
        {"x": 0, "y": 1},
        {"x": 0, "y": 0, "z": 1},
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dev = tmp_path / "dev.jsonl"
        run("lsbillm", "convert", dev, tmp_path / "more", "--labels-from", dev)
    assert stored(tmp_path / "more" / "dev.spacy", nlp)[0].cats == {"y": 1, "z": 0}


@pytest.mark.parametrize("multi_label", [False, True])
def test_classes_that_training_never_had_count_as_missed(nlp, multi_label):
    """spaCy's own scorer would count all three as apples."""
    examples = []
    for name in ("apple", "zebra", "zebra", "zebra"):
        doc, gold = nlp.make_doc(name), nlp.make_doc(name)
        doc.cats, gold.cats = {"apple": 0.9, "pear": 0.1}, {"apple": 0.0, "pear": 0.0, name: 1.0}
        examples.append(Example(doc, gold))
    score = registry.scorers.get("spacy-lsbillm.textcat_scorer.v1")(multi_label)
    with pytest.warns(UserWarning, match="the class 'zebra' of the document 'zebra' was not in the training corpus"):
        found = score(examples, labels=["apple", "pear"], threshold=0.5)
    assert found["cats_micro_r"] == 0.25
    assert found["cats_micro_p"] == 0.25


def test_tokens_that_nobody_has_annotated(nlp, tmp_path):
    doc = doc_of(nlp, {"tokens": ["play", "jazz", "now", "."], "tags": ["O", "B-x", "-", None]})
    assert [token.ent_iob for token in doc] == [2, 3, 0, 0]
    with pytest.raises(DataError, match="here: the token 'jazz' has no annotation"):
        make_doc(nlp, Record({"tokens": ["play", "jazz"], "tags": ["O", "-"]}, "here"), Labels(), "key")


def test_tokens_that_will_be_cut_again_are_named(tmp_path):
    line = {"text": "jazzrock band", "tokens": ["jazz", "rock", "band"], "tags": ["B-x", "O", "O"]}
    path = write(tmp_path / "a.jsonl", {"text": "a b", "tokens": ["a", "b"]}, line, line)
    with pytest.warns(UserWarning, match="line 2 has other tokens than the tokenizer of 'en' makes") as raised:
        run("lsbillm", "convert", path, tmp_path / "out")
    assert len(raised) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del line["text"]
        run("lsbillm", "convert", write(tmp_path / "b.jsonl", line), tmp_path / "out")


def test_what_is_not_read_is_named_once(tmp_path, nlp):
    path = write(tmp_path / "a.jsonl", {"text": "a", "lable": "x"}, {"text": "b", "lable": "y"})
    with pytest.warns(UserWarning, match="line 1: lable is not read. Keys: text, tokens") as raised:
        records = list(read_records(path))
    assert len(raised) == 1
    assert [record.content for record in records] == [{"text": "a"}, {"text": "b"}]


def test_a_byte_order_mark_is_no_part_of_a_token(tmp_path):
    (tmp_path / "a.iob").write_bytes(b"\xef\xbb\xbfplay\tO\r\njazz\tB-x\r\n")
    assert next(iter(read_records(tmp_path / "a.iob"))).content == {"tokens": ["play", "jazz"], "tags": ["O", "B-x"]}


def test_other_white_space_is_a_part_of_a_token(tmp_path):
    (tmp_path / "a.iob").write_text("a\u00a0b B-x\n\u6771\u4eac\u3000\u90fd  B-x\n1\u2009000 B-x\n", encoding="utf8")
    (record,) = read_records(tmp_path / "a.iob")
    assert record.content == {"tokens": ["a\u00a0b", "\u6771\u4eac\u3000\u90fd", "1\u2009000"], "tags": ["B-x"] * 3}


def test_blanks_behind_a_tag_are_no_part_of_the_label(tmp_path):
    (tmp_path / "a.iob").write_text("jazz\tB-genre \nby\tO \n")
    assert next(iter(read_records(tmp_path / "a.iob"))).content["tags"] == ["B-genre", "O"]


def test_the_reader_leaves_out_empty_documents(tmp_path, nlp):
    """Like spaCy's, because its listeners cannot learn from a batch of empty documents."""
    path = write(tmp_path / "a.jsonl", *({"text": text} for text in ("", "one", "", "two")))
    read = registry.readers.get("spacy-lsbillm.JsonlCorpus.v1")(path)
    assert [example.text for example in read(nlp)] == ["one", "two"]


def test_a_class_that_the_reader_was_not_given_is_named(tmp_path, nlp):
    path = write(tmp_path / "a.jsonl", {"text": "a", "label": "x"}, {"text": "b", "labels": ["y", "z"]})
    read = registry.readers.get("spacy-lsbillm.JsonlCorpus.v1")(path, labels=["x", "y"])
    with pytest.raises(DataError, match=r"line 2 has the class 'z', which is not among the labels .*: x, y"):
        list(read(nlp))


def test_the_reader_streams_and_starts_over(tmp_path, nlp):
    path = write(tmp_path / "a.jsonl", *({"text": f"text {i}", "label": "ab"[i % 2]} for i in range(5)))
    create = registry.readers.get("spacy-lsbillm.JsonlCorpus.v1")
    read = create(path)
    for _ in range(2):
        examples = list(read(nlp))
        assert [example.text for example in examples] == [f"text {i}" for i in range(5)]
        assert examples[1].reference.cats == {"a": 0.0, "b": 1.0}
        assert examples[1].predicted.cats == {}
    assert len(list(create(path, limit=2)(nlp))) == 2
    assert next(create(path, labels=["a", "b", "c"])(nlp)).reference.cats == {"a": 1.0, "b": 0.0, "c": 0.0}
    # It reads no further than requested.
    path.write_text('{"text": "a", "label": "a"}\nnot JSON\n')
    assert next(create(path, labels=["a"])(nlp)).text == "a"


# Multiple choice

QUESTION = {"question": "Which is wet?", "choices": ["sand", "water", "wool"], "answer": 1}


def test_a_question_as_one_document_or_as_one_per_choice(nlp):
    (joint,) = choice_records([Record(QUESTION, "here")], "joint")
    doc = make_doc(nlp, joint, Labels())
    assert doc.text == "Which is wet?\nA. sand\nB. water\nC. wool"
    assert doc.cats == {"A": 0.0, "B": 1.0, "C": 0.0}
    each = [
        make_doc(nlp, record, Labels())
        for record in choice_records([Record(QUESTION, "a"), Record(QUESTION, "b")], "each")
    ]
    assert [doc.text for doc in each[:3]] == [f"Which is wet?\n{choice}" for choice in QUESTION["choices"]]
    assert [doc.cats["right"] for doc in each] == [0, 1, 0] * 2
    assert [doc.user_data["question"] for doc in each] == ["a"] * 3 + ["b"] * 3


def test_the_reader_of_questions(tmp_path, nlp):
    path = write(tmp_path / "q.jsonl", QUESTION, {**QUESTION, "answer": None})
    create = registry.readers.get("spacy-lsbillm.MultipleChoice.v1")
    assert [example.reference.cats for example in create(path)(nlp)] == [{"A": 0, "B": 1, "C": 0}, {}]
    assert len(list(create(path, mode="each", limit=1)(nlp))) == 3


@pytest.mark.parametrize("mode", ["joint", "each"])
def test_accuracy_is_by_question(tmp_path, mode):
    """Three questions in two files, the second answered wrongly, and one without an answer, which does not count."""
    nlp = spacy.blank("en")
    write(tmp_path / "a.jsonl", QUESTION)
    write(tmp_path / "b.jsonl", QUESTION, QUESTION, {**QUESTION, "answer": None})
    run("lsbillm", "convert", tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "c", "--choices", mode)
    examples = list(Corpus(tmp_path / "c")(nlp))
    for example in examples:
        if not example.reference.cats:
            continue
        right = not example.reference.user_data["question"].endswith("b.jsonl, line 1")
        if mode == "joint":
            # A letter that is not among the choices is not an answer, however probable it is.
            example.predicted.cats = {"A": 0.2 if right else 0.5, "B": 0.3, "C": 0.1, "D": 0.9}
        else:
            chance = (0.3 if right else 0.05) if example.reference.cats["right"] else 0.1
            example.predicted.cats = {"right": chance, "wrong": 1 - chance}
    assert choice_score(examples)["choice_acc"] == pytest.approx(2 / 3)


def test_documents_without_one_of_classes_that_exclude_each_other_do_not_count(nlp):
    examples = []
    for gold, predicted in (({"x": 1, "y": 0}, "y"), ({"x": 0, "y": 1}, "y"), ({"x": 0, "y": 0}, "x")):
        example = Example(nlp.make_doc("film"), nlp.make_doc("film"))
        example.reference.cats = gold
        example.predicted.cats = {"x": 0.1, "y": 0.1, predicted: 0.9}
        examples.append(example)
    score = registry.scorers.get("spacy-lsbillm.textcat_scorer.v1")(False)
    with pytest.warns(UserWarning, match="1 documents have none of the exclusive classes.*such as 'film'"):
        assert score(examples, labels=["x", "y"])["cats_micro_f"] == 0.5


def test_documents_without_a_question_are_named(nlp):
    doc = nlp.make_doc("stray")
    doc.cats = {"A": 1.0}
    with pytest.raises(DataError, match="'stray' does not name the question"):
        choice_score([Example(nlp.make_doc("stray"), doc)])


# Bad input


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "neither 'text' nor 'tokens'"),
        ({"question": "a", "choices": ["b", "c"]}, "Questions with choices need --choices"),
        ({"text": 3}, "'text' is 3; it must be a string"),
        ({"text": "a", "label": 1}, "'label' is 1"),
        ({"text": "a", "cats": {"x": "yes"}}, "each value must be a number from 0 to 1"),
        ({"text": "a", "cats": {"x": 1}, "labels": ["y"]}, "'cats' beside 'label' or 'labels'"),
        ({"text": "a  b", "tokens": ["a", " ", "b"], "tags": ["O", "O", "B-x"]}, "contains tokens of white space only"),
        ({"text": "ab", "spans": [{"start": "0", "end": 2, "label": "x"}]}, "needs 'start' and 'end' as numbers"),
        ({"text": "ab", "spans": [{"start": 0, "end": 9, "label": "x"}]}, "0 to 2"),
        ({"text": "ab", "spans": [{"start": 0, "end": 2, "label": ""}]}, "a non-empty 'label'"),
        ({"text": "a", "labels": ["x", ""]}, "not all non-empty strings"),
        ({"text": "a", "labels": ["x"], "label": "x"}, "leave out one"),
        ({"tokens": ["a", ""]}, "'tokens' contains something"),
        ({"tokens": ["a"], "tags": []}, "has 0 tags"),
        ({"text": "a", "tags": ["O"]}, "has 1 tags, which is not the number of its 'tokens'"),
        ({"tokens": ["a"], "tags": ["O"], "spans": []}, "leave out one"),
        ({"tokens": ["a", "b"], "tags": ["O", "I-x"]}, "'I-x' of 'b' has no B-x before it"),
        ({"tokens": ["a", "b"], "tags": ["B-x", "I-y"]}, "'I-y' of 'b' has no B-y before it"),
        ({"tokens": ["a"], "tags": ["U-x"]}, "'U-x' of 'a' is not IOB2"),
        ({"tokens": ["a"], "tags": ["B-"]}, "'B-' of 'a' is not IOB2"),
        ({"text": "ab c", "tokens": ["ab", "d"]}, "do not match the text: 'd' is not what follows at character 2"),
        ({"text": "ab x c", "tokens": ["ab", "c"]}, "do not match the text"),
        ({"text": "ab c", "tokens": ["ab"]}, "none covers ' c'"),
        ({"text": "ab c", "spans": [{"start": 0, "end": 1, "label": "x"}]}, "does not begin and end with a token"),
        ({"text": "ab c", "spans": [{"start": 0, "label": "x"}]}, "'start', 'end' and 'label'"),
    ],
)
def test_what_does_not_fit_is_named(nlp, content, message):
    with pytest.raises(DataError, match=f"here.*{message}"):
        doc_of(nlp, content)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"choices": ["one"]}, "not a list of 2 to 26 choices, each with something in it.*Which is wet"),
        ({"choices": ["a", ""]}, "not a list of 2 to 26 choices, each with something in it"),
        ({"answer": 3}, "the answer 3 is none of the 3 choices"),
        ({"question": ""}, "does not have 'question'"),
        ({"answer": "B"}, "'answer' is 'B'; it must be a whole number"),
        ({"answer": True}, "'answer' is True"),
    ],
)
def test_questions_that_do_not_fit_are_named(changed, message):
    with pytest.raises(DataError, match=f"here.*{message}"):
        list(choice_records([Record({**QUESTION, **changed}, "here")], "joint"))
    with pytest.raises(DataError, match="'both' is not known"):
        list(choice_records([], "both"))


def test_files_that_do_not_fit_are_named_and_nothing_is_written(tmp_path):
    (tmp_path / "good.iob").write_text(IOB)
    for name, content, message in (
        ("bad.iob", b"one\n", "bad.iob, line 1: 'one' does not have a token and a tag"),
        ("bad.iob", b"a\tO\n\nb\tI-x\n", "bad.iob, line 3: 'I-x' of 'b'"),
        ("bad.iob", b"a\xff\tO\n", "bad.iob, line 1 is not UTF-8"),
        ("bad.iob", b"a B-x\nNew York B-x\n", "line 2: 'New York B-x' has 3 columns, and the lines before it 2"),
        ("bad.iob", b"a\tO\nb\tc\td\tB-x\n", "line 2: 'b\\tc\\td\\tB-x' has 4 columns"),
        ("bad.iob", b"a O\n\n# id = 1\nb O\n", "Comments look like tokens"),
        ("bad.iob", b"jazz B-x\rby O\r", "bad.iob, line 1 has line ends of another kind"),
        ("bad.jsonl", b'{"text": "a"}\n{"text"\n', "bad.jsonl, line 2 is not JSON"),
        ("bad.jsonl", b"[1]\n", "bad.jsonl, line 1 is not a JSON object"),
        ("bad.jsonl", b'{"text": "a", "label": "\\ud83d"}\n', "bad.jsonl, line 1 has a lone surrogate"),
        ("bad.jsonl", b'{"text": "a", "label": "x", "label": "y"}\n', "the key 'label' occurs twice"),
        ("bad.jsonl", b'{"text": "a", "cats": {"x": ' + b"1" * 5000 + b"}}\n", "bad.jsonl, line 1 is not JSON"),
        ("bad.jsonl", b'{"text": "' + b"a" * 1_000_001 + b'"}\n', "line 1: the text has 1,000,001 characters"),
        ("bad.jsonl", b"\n", "bad.jsonl holds no document"),
        ("bad.csv", b"a,b\n", "the suffix '.csv' is not known"),
        ("good.tsv", b"a\tO\n", "two of the files would be written to"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        output = run("lsbillm", "convert", tmp_path / "good.iob", path, tmp_path / "out", code=1)
        assert message in " ".join(output.split()).replace(f"{tmp_path}/", ""), output
        assert not (tmp_path / "out").exists()
        path.unlink()
    (tmp_path / "empty").mkdir()
    assert "holds no file that ends in .iob" in " ".join(
        run("lsbillm", "convert", tmp_path / "empty", tmp_path / "out", code=1).split()
    )
    assert "no file or folder" in " ".join(run("lsbillm", "convert", tmp_path / "x", tmp_path / "out", code=1).split())
    with pytest.raises(DataError, match="there is no file 'None'"):
        registry.readers.get("spacy-lsbillm.JsonlCorpus.v1")(None)
    for reader in ("JsonlCorpus", "MultipleChoice"):
        with pytest.raises(DataError, match="limit = -1 is not allowed"):
            registry.readers.get(f"spacy-lsbillm.{reader}.v1")(tmp_path / "good.iob", limit=-1)


@given(st.lists(st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b"]), max_size=8))
def test_iob_tags_come_back_or_are_refused(tags):
    tokens = [str(i) for i in range(len(tags))]
    fine = all(tag[0] != "I" or (i and tags[i - 1] != "O" and tags[i - 1][1:] == tag[1:]) for i, tag in enumerate(tags))
    if not fine:
        with pytest.raises(DataError, match="has no B-"):
            iob_spans(tags, "here", tokens)
        return
    again = ["O"] * len(tags)
    for start, end, label in iob_spans(tags, "here", tokens):
        again[start:end] = [f"B-{label}"] + [f"I-{label}"] * (end - start - 1)
    assert again == tags


def test_a_document_of_nothing(nlp):
    assert len(doc_of(nlp, {"tokens": [], "tags": []})) == 0
    assert isinstance(doc_of(nlp, {"text": ""}), Doc)
