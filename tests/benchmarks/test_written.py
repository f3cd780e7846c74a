"""The language model that writes its annotation, in the benchmarks: its prompt, and how its answers count."""

import json

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from test_benchmarks import LIMITS, data  # noqa: F401
from transformers import AutoTokenizer

from benchmarks.tasks.answers import Task, read_list
from benchmarks.tasks.cell import Run
from benchmarks.tasks.models import BASELINES, PROMPTED, WRITTEN, Budget, Compared, Tuned

pytestmark = pytest.mark.any_stack

NLP = spacy.blank("en")
SPANS = Task("sequence", ("city", "day"))
TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }}\n{% endfor %}assistant "


def spans_of(text, answer):
    doc = NLP(text)
    readable = SPANS.annotate(doc, answer)
    return readable, [(span.start, span.end, span.label_) for span in doc.ents]


def said(*spans):
    return json.dumps([{"text": text, "label": label} for text, label in spans])


PARIS, MONDAY = ("Paris", "city"), ("Monday", "day")


@pytest.mark.parametrize(
    ("answer", "readable", "expected"),
    [
        (said(PARIS), True, [(1, 2, "city")]),
        # The same span twice: one after the other.
        (said(PARIS, PARIS), True, [(1, 2, "city"), (3, 4, "city")]),
        # Out of order, with text around the JSON.
        (f"Sure: {said(MONDAY, PARIS)} done", True, [(1, 2, "city"), (5, 6, "day")]),
        # Not in the text, part of a token, an unknown label, not an object.
        (said(("Rome", "city"), ("Par", "city"), ("Paris", "x")), True, []),
        ('[{"text": ["Paris"], "label": ["city"]}, {"text": "", "label": "city"}, 3, null]', True, []),
        ("[]", True, []),
        ('[{"text": "Paris", "label": "ci', False, []),
        ("There are no spans.", False, []),
        ("[" * 3_000, False, []),
    ],
)
def test_an_answer_becomes_spans(answer, readable, expected):
    assert spans_of("to Paris or Paris on Monday", answer) == (readable, expected)


@given(st.text(max_size=60))
def test_any_answer_can_be_taken(answer):
    readable, _ = spans_of("to Paris on Monday", answer)
    assert readable == (read_list(answer) is not None)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_an_answer_becomes_classes(kind):
    task, doc = Task(kind, ("book", "play")), NLP("a text")
    assert task.annotate(doc, '["play", "sing", "book"]')
    assert doc.cats == {"book": 1.0 if kind == "multi" else 0.0, "play": 1.0}
    assert not task.annotate(doc, "play") and doc.cats == {"book": 0.0, "play": 0.0}


def test_what_should_be_answered_is_read_as_the_annotation():
    doc = NLP("to Paris or Paris on Monday")
    doc.set_ents([doc.char_span(12, 17, label="city"), doc.char_span(21, 27, label="day")])
    _, found = spans_of(doc.text, json.dumps(json.loads(SPANS.answer(doc))[1:]))
    assert found == [(5, 6, "day")]
    classes = Task("multi", ("book", "play"))
    doc.cats = {"book": 0.0, "play": 1.0}
    again = NLP(doc.text)
    assert classes.annotate(again, classes.answer(doc)) and again.cats == doc.cats


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("snips_slots", Compared("", answer=PROMPTED, shots=2)),
        ("snips_intents", Compared("", answer=PROMPTED)),
        ("snips_slots", Compared("", answer=WRITTEN, tuned=Tuned(0.001))),
    ],
)
def test_a_cell(make_base, data, tmp_path, monkeypatch, name, model):  # noqa: F811
    folder = tmp_path / "base"
    tokenizer = AutoTokenizer.from_pretrained(make_base(max_position_embeddings=2048))
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    for path in make_base(max_position_embeddings=2048).iterdir():
        if not (folder / path.name).exists():
            (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setitem(BASELINES, "asked", Compared(**{**vars(model), "base": str(folder)}))
    run = Run(data, tmp_path / "w", tmp_path / "results", LIMITS, Budget(2, 4, 2))
    run.cells([(name, "asked", 0)])
    found = run.store.read(f"{name}/asked/0")
    # Random weights write nothing readable.
    assert found["test"] == 0.0 and found["test_unread"] == found["split"]["sizes"]["test"]
    assert [step for step, _ in found["dev_by_step"]] == ([2, 4] if model.answer == WRITTEN else [])
    assert found["prompt"].count("Text:") == model.shots + 1
    run.cells([(name, "asked", 0)])
