"""New labels for a trained pipeline: growing heads, label sets of documents, a teacher, replay."""

import json

import numpy as np
import pytest
import spacy
from corpora import run
from heads import CNN, corpus, found, labeler
from pipelines import LISTENER, build
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Corpus, Example
from spacy.util import fix_random_seed
from thinc.api import Adam

from spacy_lsbillm.data.readers import create_label_set_corpus_v1
from spacy_lsbillm.errors import DataError, SettingError
from spacy_lsbillm.layers import LossSettings
from spacy_lsbillm.pipeline.span_labeler import span_labeler_score
from spacy_lsbillm.pipeline.teacher import add_labels, create_new_labels_v1

pytestmark = pytest.mark.any_stack

OLD = ["we met in boston", "a trip to paris", "rain over boston again", "they live in paris now"]
NEW = ["hear miles davis", "some songs by chet baker", "a record of miles davis", "chet baker on air"]
CITIES, ARTISTS = ("boston", "paris"), ("miles davis", "chet baker")
EVERY = {"city": CITIES, "artist": ARTISTS}
CLASSES = ("trip", "weather")


def example(nlp, text, names, annotated=None, spans_key=None, cats=None):
    reference = nlp.make_doc(text)
    spans = [
        reference.char_span(text.index(word), text.index(word) + len(word), label=label)
        for label in names
        for word in EVERY[label]
        if word in text
    ]
    if spans_key is None:
        reference.set_ents(spans)
    else:
        reference.spans[spans_key] = spans
    if annotated is not None:
        reference.user_data["annotated"] = annotated
    reference.cats = cats or {}
    return Example(nlp.make_doc(text), reference)


def classifier(nlp, factory, tok2vec=LISTENER):
    model = {
        "@architectures": "spacy-lsbillm.PooledTextCat.v1",
        "exclusive_classes": factory == "textcat",
        "pooling": "mean",
        "tok2vec": tok2vec,
    }
    return nlp.add_pipe(factory, config={"model": model})


def old_cats(text):
    return {"trip": float("rain" not in text), "weather": float("rain" in text)}


def learn(nlp, data, steps, optimizer):
    for _ in range(steps):
        losses = nlp.update(data, sgd=optimizer, losses={})
    return losses


@pytest.fixture(scope="module")
def old(make_base, tmp_path_factory):
    """The folder of a pipeline that knows cities and two kinds of classes."""
    fix_random_seed(0)
    nlp = build(make_base(), heads=(), lora={"r": 4, "dropout": 0.0})
    labeler(nlp)
    classifier(nlp, "textcat")
    data = [example(nlp, text, ["city"], cats=old_cats(text)) for text in OLD]
    nlp.initialize(lambda: data)
    learn(nlp, data, 30, Adam(0.005))
    folder = tmp_path_factory.mktemp("old") / "pipeline"
    nlp.to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The same with a small network of its own for each head, instead of a transformer."""
    fix_random_seed(0)
    nlp = spacy.blank("xx")
    labeler(nlp, tok2vec=CNN)
    classifier(nlp, "textcat", CNN)
    data = [example(nlp, text, ["city"], cats=old_cats(text)) for text in OLD]
    nlp.initialize(lambda: data)
    learn(nlp, data, 30, Adam(0.01))
    folder = tmp_path_factory.mktemp("small") / "pipeline"
    nlp.to_disk(folder)
    return folder


def score(nlp, texts, names):
    return nlp.evaluate([example(nlp, text, names) for text in texts])["ents_f"]


# Growing


@pytest.mark.parametrize("scheme", ["biluo", "iob2"])
def test_old_rows_are_kept_bit_for_bit(tmp_path, scheme):
    nlp = spacy.blank("xx")
    pipe = labeler(nlp, tok2vec=CNN, scheme=scheme, class_weights={"city": 2.0, "O": 0.5})
    data = corpus(nlp)
    nlp.initialize(lambda: data)
    learn(nlp, data, 30, optimizer := Adam(0.01))
    docs = list(nlp.pipe([one.text for one in data]))
    before, tags, rows = [found(doc) for doc in docs], pipe.scheme.tags, dict_of_rows(pipe)
    assert any(before)
    pipe.loss = LossSettings({"city": 2.0, "moon": 3.0, "O": 0.5})
    assert (pipe.add_label("moon"), pipe.add_label("moon")) == (1, 0)
    assert pipe.labels[-1] == "moon" and set(tags) < set(pipe.scheme.tags)
    after = dict_of_rows(pipe)
    assert all(np.array_equal(after[tag], rows[tag]) for tag in tags)
    assert not any(after[tag].any() for tag in set(after) - set(tags))
    assert [found(doc) for doc in nlp.pipe([one.text for one in data])] == before
    # The class weights stay with their labels.
    names = [*pipe.labels, "O"]
    assert dict(zip(names, pipe.cfg["class_weights"], strict=True))["moon"] == 3.0
    assert pipe.cfg["class_weights"][-1] == 0.5
    # It can be trained further with its optimizer, and is saved with its new size.
    data[0].reference.set_ents([Span(data[0].reference, 1, 3, label="moon")])
    learn(nlp, data, 40, optimizer)
    assert {ent.label_ for ent in nlp(data[0].text).ents} == {"moon"}
    nlp.to_disk(tmp_path / "grown")
    again = spacy.load(tmp_path / "grown")
    assert again.get_pipe("sequence_labeler").labels == pipe.labels
    assert found(again(data[0].text)) == found(nlp(data[0].text))


def dict_of_rows(pipe):
    output = pipe.model.get_ref("output_layer")
    rows = np.concatenate([output.get_param("W"), output.get_param("b")[:, None]], axis=1)
    return dict(zip(pipe.scheme.tags, rows.copy(), strict=True))


@pytest.mark.parametrize("factory", ["textcat", "textcat_multilabel"])
def test_a_pooled_textcat_gets_another_class(tmp_path, factory):
    nlp = spacy.blank("xx")
    pipe = classifier(nlp, factory, CNN)
    data = corpus(nlp)
    nlp.initialize(lambda: data)
    learn(nlp, data, 10, optimizer := Adam(0.01))
    kept = [pipe.model.get_ref("output_layer").get_param(name).copy() for name in "Wb"]
    texts = [one.text for one in data]
    before = {name: nlp(texts[0]).cats[name] for name in pipe.labels}
    assert pipe.add_label("new") == 1
    larger = [pipe.model.get_ref("output_layer").get_param(name) for name in "Wb"]
    assert all(np.array_equal(one[: len(other)], other) for one, other in zip(larger, kept, strict=True))
    after = nlp(texts[0]).cats
    for one, other in zip(before, list(before)[1:], strict=False):
        # The ratio of the old probabilities is unchanged.
        assert after[one] / after[other] == pytest.approx(before[one] / before[other], rel=1e-3)
    for one in data:
        one.reference.cats = {**dict.fromkeys(before, 0.0), "new": 1.0}
    learn(nlp, data, 30, optimizer)
    assert max(nlp(texts[0]).cats.items(), key=lambda item: item[1])[0] == "new"
    nlp.to_disk(tmp_path / "grown")
    assert spacy.load(tmp_path / "grown")(texts[0]).cats == pytest.approx(nlp(texts[0]).cats, abs=1e-5)


# Label sets


@pytest.mark.parametrize("spans_key", [None, "slots"])
def test_what_a_document_was_not_annotated_for_has_no_part_in_the_loss(spans_key):
    nlp = spacy.blank("xx")
    pipe = labeler(nlp, tok2vec=CNN, spans_key=spans_key)
    data = [example(nlp, OLD[0], ["city"], spans_key=spans_key), example(nlp, NEW[0], ["artist"], spans_key=spans_key)]
    pipe.add_label("moon")
    nlp.initialize(lambda: data)
    tags = pipe.scheme.tags
    scores = [np.random.default_rng(0).normal(size=(len(data[0].predicted), len(tags))).astype("f")]
    p = np.exp(scores[0]) / np.exp(scores[0]).sum(axis=1, keepdims=True)

    def gradient(annotated):
        return pipe.get_loss([example(nlp, OLD[0], ["city"], annotated, spans_key)], scores)

    loss, (all_known,) = gradient(None)
    everything = gradient(["city", "artist", "moon"])
    assert everything[0] == pytest.approx(loss) and np.array_equal(everything[1][0], all_known)
    loss, (cities_known,) = gradient(["city"])
    outside = [i for i, token in enumerate(data[0].reference) if token.text != "boston"]
    may_be = [i for i, tag in enumerate(tags) if not tag.endswith("-city")]
    # The loss does not depend on which of the other tags they have, only on their not being a city.
    share = cities_known[outside][:, may_be] / p[outside][:, may_be]
    np.testing.assert_allclose(share, np.repeat(share[:, :1], len(may_be), axis=1), rtol=1e-4)
    assert (cities_known[outside][:, may_be] < 0).all() and (share < 0).all()
    expected = -np.log(p[outside][:, may_be].sum(axis=1)).sum() - np.log(p[3, tags.index("U-city")])
    assert loss == pytest.approx(expected / len(p), rel=1e-4)
    # The gold span has the same gradient as if everything had been annotated.
    np.testing.assert_allclose(gradient(["city"])[1][0][3], all_known[3], rtol=1e-5)


@pytest.mark.parametrize("spans_key", [None, "slots"])
def test_a_prediction_of_a_label_that_nobody_annotated_is_not_wrong(spans_key):
    nlp = spacy.blank("xx")
    pipe = labeler(nlp, spans_key=spans_key)
    name = "ents" if spans_key is None else f"spans_{spans_key}"

    def scores(annotated):
        one = example(nlp, "miles davis in boston", ["city"], annotated, spans_key)
        doc = one.predicted
        spans = [Span(doc, 0, 2, label="artist"), Span(doc, 3, 4, label="city")]
        if spans_key is None:
            doc.set_ents(spans)
            for span in spans:
                span._.ent_score = 1.0
        else:
            doc.spans[spans_key] = spans
            doc.spans[spans_key].attrs["scores"] = [1.0, 1.0]
        return pipe.scorer([one], spans_key=spans_key)

    assert scores(None)[f"{name}_p"] == 0.5 and scores(None)[f"{name}_ece"] == pytest.approx(0.5)
    assert scores(["city"])[f"{name}_p"] == 1.0 and scores(["city"])[f"{name}_ece"] == pytest.approx(0.0)
    assert scores(["city", "artist"])[f"{name}_p"] == 0.5


def test_so_it_is_for_spans_that_may_overlap():
    one = example(spacy.blank("xx"), "miles davis in boston", ["city"], ["city"], "sc")
    one.predicted.spans["sc"] = [Span(one.predicted, 0, 2, label="artist"), Span(one.predicted, 3, 4, label="city")]
    assert span_labeler_score([one], "sc")["spans_sc_p"] == 1.0
    one.reference.user_data["annotated"] = ["city", "artist"]
    assert span_labeler_score([one], "sc")["spans_sc_p"] == 0.5


def test_a_bad_label_set():
    nlp = spacy.blank("xx")
    pipe = labeler(nlp)
    with pytest.raises(DataError, match=r"'we met in boston': 'annotated' is 'city'; it must be a list of labels"):
        pipe.scorer([example(nlp, OLD[0], ["city"], "city")])


# A teacher


def test_a_teacher_keeps_what_naive_training_loses(small):
    """New texts are annotated with one label only, and the earlier labels occur in none of them."""
    results = {}
    for way in ("naive", "teacher"):
        fix_random_seed(0)
        nlp = spacy.load(small)
        assert score(nlp, OLD, ["city"]) == 1.0
        add_labels(nlp, {"sequence_labeler": ["artist"]}, small if way == "teacher" else None)
        # Some of the new texts contain cities, which are not annotated.
        texts = [*NEW, "hear miles davis in boston", "chet baker in paris"]
        data = [example(nlp, text, ["artist"], None if way == "naive" else ["artist"]) for text in texts]
        learn(nlp, data, 40, Adam(0.01))
        results[way] = (score(nlp, OLD, ["city"]), score(nlp, NEW, ["artist"]))
    assert results["naive"][0] < 0.5 and results["naive"][1] == 1.0
    assert results["teacher"][0] > 0.85 and results["teacher"][1] == 1.0


def test_a_teacher_says_what_stands_where_nothing_is_annotated(old):
    nlp = spacy.load(old)
    add_labels(nlp, {"sequence_labeler": ["artist"]}, teacher := spacy.load(old))
    pipe = nlp.get_pipe("sequence_labeler")
    one = Example(nlp.make_doc("they live in paris now"), nlp.make_doc("they live in paris now"))
    scores = [np.zeros((len(one.predicted), pipe.scheme.n_tags), "f")]
    loss, (gradient,) = pipe.get_loss([one], scores)
    expected = teacher.get_pipe("sequence_labeler").tag_probabilities([teacher("they live in paris now")])
    tags, of_teacher = pipe.scheme.tags, teacher.get_pipe("sequence_labeler").scheme.tags
    uniform = 1 / len(tags)
    for j, tag in enumerate(of_teacher):
        if tag != "O":
            wanted = (uniform - expected[:, j]) / len(gradient)
            np.testing.assert_allclose(gradient[:, tags.index(tag)], wanted, atol=1e-5)
    # Tokens that it tags as O are O or have a label that it does not know.
    new = [i for i, tag in enumerate(tags) if tag not in of_teacher]
    np.testing.assert_allclose(gradient[:, new], np.repeat(gradient[:, :1], len(new), axis=1), atol=1e-6)
    assert loss > 0
    # Gold has priority: where a gold city is, no other label is possible.
    gold = example(nlp, "they live in paris now", ["city"], ["city", "artist"])
    _, (gradient,) = pipe.get_loss([gold], scores)
    assert gradient[3].argmin() == tags.index("U-city") and gradient[0].argmin() == 0


def test_what_is_left_out_of_the_loss_is_not_left_to_the_teacher(old):
    nlp = spacy.load(old)
    add_labels(nlp, {"sequence_labeler": ["artist"]}, old)
    pipe = nlp.get_pipe("sequence_labeler")
    one = example(nlp, "hear miles davis", ["artist"], ["artist", "venue"])
    one.reference.set_ents([Span(one.reference, 1, 3, label="venue")])
    with pytest.warns(UserWarning, match="venue"):
        _, (gradient,) = pipe.get_loss([one], [np.zeros((3, pipe.scheme.n_tags), "f")])
    assert gradient[0].any() and not gradient[1:].any()


def test_a_head_whose_size_was_in_the_config_grows(tmp_path):
    nlp = spacy.blank("xx")
    model = {"@architectures": "spacy-lsbillm.SequenceLabeler.v1", "tok2vec": CNN, "nO": 5}
    nlp.add_pipe("sequence_labeler", config={"model": model})
    nlp.initialize(lambda: [example(nlp, text, ["city"]) for text in OLD])
    add_labels(nlp, {"sequence_labeler": ["artist"]})
    nlp.to_disk(tmp_path / "grown")
    assert spacy.load(tmp_path / "grown").get_pipe("sequence_labeler").labels == ("city", "artist")


@pytest.mark.parametrize("factory", ["textcat", "textcat_multilabel"])
def test_a_teacher_of_classes(make_base, tmp_path, factory):
    """Documents without the new class keep their old classes."""
    results = {}
    fix_random_seed(0)
    nlp = spacy.blank("xx")
    classifier(nlp, factory, CNN)
    data = [example(nlp, text, [], cats=old_cats(text)) for text in OLD]
    nlp.initialize(lambda: data)
    learn(nlp, data, 20, Adam(0.01))
    nlp.to_disk(tmp_path / "old")
    expected = [nlp(text).cats for text in OLD]
    for way in ("naive", "teacher"):
        fix_random_seed(0)
        nlp = spacy.load(tmp_path / "old")
        add_labels(nlp, {factory: ["music"]}, tmp_path / "old" if way == "teacher" else None)
        others = [example(nlp, text, [], cats={"music": 0.0}) for text in OLD]
        new = [example(nlp, text, [], cats={"music": 1.0}) for text in NEW]
        learn(nlp, [*others, *new], 30, Adam(0.01))
        assert all(nlp(text).cats["music"] > 0.5 for text in NEW)
        found = [nlp(text).cats for text in OLD]
        results[way] = max(abs(a[name] - b[name]) for a, b in zip(expected, found, strict=True) for name in CLASSES)
    assert results["teacher"] < 0.1 < results["naive"]


# Corpora and configs


def write(path, nlp, texts, names, **more):
    DocBin(docs=[example(nlp, text, names, **more).reference for text in texts], store_user_data=True).to_disk(path)
    return path


def test_a_corpus_with_replay(tmp_path):
    nlp = spacy.blank("xx")
    new = write(tmp_path / "new.spacy", nlp, NEW, ["artist"])
    old_docs = write(tmp_path / "old.spacy", nlp, OLD * 3, ["city"])
    read = create_label_set_corpus_v1(new, None, old_docs, ["city", "date"], 2)
    found = [(one.reference.text, tuple(one.reference.user_data["annotated"])) for one in read(nlp)]
    assert [text for text, _ in found if text in NEW] == NEW
    assert {labels for text, labels in found if text in NEW} == {("artist",)}
    assert [labels for text, labels in found if text in OLD] == [("city", "date")] * 6
    again = [text for text, _ in found if text in OLD]
    assert again[:2] * 3 == again and found[-1][0] in OLD and len({text for text, _ in found[:4]}) > 2
    assert found == [(one.reference.text, tuple(one.reference.user_data["annotated"])) for one in read(nlp)]
    once = create_label_set_corpus_v1(new, None, old_docs, None, 2, replay_times=1)
    assert [tuple(one.reference.user_data["annotated"]) for one in once(nlp) if one.text in OLD] == [("city",)] * 2
    # A label set that a document has of its own is kept, and a corpus without replay is unchanged.
    said = write(tmp_path / "said.spacy", nlp, OLD, ["city"], annotated=["city", "artist"])
    plain = create_label_set_corpus_v1(said, ["moon"])
    assert all(one.reference.user_data["annotated"] == ("city", "artist") for one in plain(nlp))
    # Unless old documents are complete.
    complete = create_label_set_corpus_v1(new, None, said, "all")
    assert [one.text in OLD for one in complete(nlp)].count(True) == 12
    assert all(("annotated" in one.reference.user_data) == (one.text in NEW) for one in complete(nlp))
    with pytest.raises(DataError, match=r"'miles davis' has the label 'artist', which is not among .*: 'artst'\."):
        list(create_label_set_corpus_v1(new, ["artst"])(nlp))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "nowhere"}, "no file or folder 'nowhere'"),
        ({"replay": "nowhere"}, "no file or folder 'nowhere'"),
        ({"annotated": "city"}, "setting annotated of LabelSetCorpus: 'annotated' is 'city'; it must be a list"),
        ({"replay_docs": 0}, "replay_docs = 0 is not allowed"),
        ({"replay_times": 1.5}, "replay_times = 1.5 is not allowed"),
        ({"replay_annotated": "every"}, 'setting replay_annotated of LabelSetCorpus, which may also be "all": '),
    ],
)
def test_bad_settings_of_the_corpus(tmp_path, settings, message):
    path = write(tmp_path / "new.spacy", spacy.blank("xx"), NEW, ["artist"])
    with pytest.raises(DataError, match=message):
        create_label_set_corpus_v1(**{"path": path, **settings})


def test_label_sets_in_jsonl(tmp_path):
    span = {"start": 10, "end": 16, "label": "city"}
    lines = [{"text": OLD[0], "spans": [span], "annotated": ["city"]}, {"text": OLD[1], "spans": []}]
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run("lsbillm", "convert", tmp_path / "some.jsonl", tmp_path / "out", "--lang", "xx")
    docs = [one.reference for one in Corpus(tmp_path / "out" / "some.spacy")(spacy.blank("xx"))]
    assert [doc.user_data.get("annotated") for doc in docs] == [("city",), None]
    for wrong, message in ((["date"], "label 'city', which is not among"), ([1], "must be a list of labels")):
        (tmp_path / "some.jsonl").write_text(json.dumps({**lines[0], "annotated": wrong}))
        told = run("lsbillm", "convert", tmp_path / "some.jsonl", tmp_path / "out", code=1)
        assert message in " ".join(told.split())


def test_spacy_train_from_a_trained_pipeline(old, tmp_path):
    """With sourced components, as described in docs/new-labels.md."""
    nlp = spacy.blank("xx")
    new = write(tmp_path / "new.spacy", nlp, NEW, ["artist"])
    before = write(tmp_path / "old.spacy", nlp, OLD, ["city"])
    config = spacy.util.load_config(old / "config.cfg")
    config["paths"] |= {"train": str(new), "dev": str(new)}
    for name in config["nlp"]["pipeline"]:
        config["components"][name] = {"source": str(old)}
    config["initialize"]["after_init"] = {
        "@callbacks": "spacy-lsbillm.new_labels.v1",
        "teacher": str(old),
        # The new corpus has no annotation of classes.
        "labels": {"sequence_labeler": ["artist"], "textcat": []},
    }
    config["corpora"]["train"] = {
        "@readers": "spacy-lsbillm.LabelSetCorpus.v1",
        "path": "${paths.train}",
        "replay": str(before),
        "replay_docs": 4,
    }
    config["training"] |= {"max_steps": 24, "eval_frequency": 12, "dropout": 0.0}
    config["training"]["score_weights"] = {"ents_f": 1.0}
    config["training"]["optimizer"]["learn_rate"] = 0.005
    config.to_disk(tmp_path / "new.cfg", interpolate=False)
    run("train", tmp_path / "new.cfg", "--output", tmp_path / "out")
    trained = spacy.load(tmp_path / "out" / "model-last")
    assert trained.get_pipe("sequence_labeler").labels == ("city", "artist")
    teacher = spacy.load(old)
    for text in (*OLD, *NEW):
        assert trained(text).cats == pytest.approx(teacher(text).cats, abs=0.15)
    assert score(trained, OLD, ["city"]) > 0.7 and score(trained, NEW, ["artist"]) > 0.5


# Bad input


def test_bad_teachers(old):
    nlp = spacy.load(old)
    with pytest.raises(SettingError, match=r"pipeline has no component 'ner'; it has: transformer, sequence_labeler"):
        add_labels(nlp, {"ner": ["artist"]})
    with pytest.raises(SettingError, match="teacher 'nowhere' cannot be loaded"):
        add_labels(nlp, {"sequence_labeler": []}, "nowhere")
    with pytest.raises(SettingError, match="cannot be the pipeline itself"):
        add_labels(nlp, {"sequence_labeler": []}, nlp)
    for config, message in (
        ({"scheme": "iob2"}, "teacher of 'sequence_labeler' has the scheme 'iob2'"),
        ({}, r"has labels that 'sequence_labeler' does not have: 'artist', 'moon'\. Add them"),
    ):
        other = spacy.blank("xx")
        pipe = labeler(other, **config)
        pipe.cfg["labels"] = ["artist", "city", "moon"]
        with pytest.raises(SettingError, match=message):
            add_labels(nlp, {"sequence_labeler": []}, other)
    with pytest.raises(SettingError, match="teacher has no component 'sequence_labeler'; it has: none"):
        add_labels(nlp, {"sequence_labeler": []}, spacy.blank("xx"))
    other = spacy.blank("xx")
    other.add_pipe("textcat").add_label("x")
    with pytest.raises(SettingError, match=r"'textcat' cannot learn from a teacher: it must be a sequence_labeler, or"):
        add_labels(nlp, {"textcat": []}, other)
    other = spacy.blank("xx")
    classifier(other, "textcat").cfg["labels"] = ["trip", "moon"]
    with pytest.raises(SettingError, match="teacher of 'textcat' has classes that 'textcat' does not have: 'moon'"):
        add_labels(nlp, {"textcat": []}, other)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "labels names no component"),
        ({"sequence_labeler": "artist"}, "labels of 'sequence_labeler' are 'artist'; they must be a list"),
        ({"sequence_labeler": [""]}, "they must be a list"),
    ],
)
def test_bad_new_labels(labels, message):
    with pytest.raises(SettingError, match=message):
        create_new_labels_v1(labels)


def test_documents_without_words_have_no_part(old):
    nlp = spacy.load(old)
    add_labels(nlp, {"sequence_labeler": ["artist"], "textcat": ["music"]}, old)
    empty = Example(Doc(nlp.vocab), Doc(nlp.vocab))
    blank = Example(nlp.make_doc("  "), nlp.make_doc("  "))
    data = [empty, blank, example(nlp, NEW[0], ["artist"], ["artist"], cats={"music": 1.0})]
    losses = nlp.update(data, sgd=False, losses={})
    assert np.isfinite(list(losses.values())).all()
    assert np.isfinite(list(nlp.update([empty, blank], sgd=False, losses={}).values())).all()
