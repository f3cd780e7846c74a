"""The label-supervised heads: `sequence_labeler`, and `PooledTextCat` under spaCy's own components."""

import warnings

import numpy as np
import pytest
import spacy
from heads import CNN, corpus, fit, found, labeler, textcat
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines import GOLD, LISTENER, build
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from thinc.api import Adam, Config, Model, get_current_ops
from tiny import TEXTS

from spacy_lsbillm.errors import SettingError
from spacy_lsbillm.layers import build_pooled_textcat
from spacy_lsbillm.pipeline.gold_tags import gold_tags

pytestmark = pytest.mark.any_stack

VOCAB = spacy.blank("en").vocab


@pytest.fixture(scope="module")
def trained(make_base):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    labeler(nlp)
    fit(nlp, corpus(nlp))
    return nlp


@st.composite
def annotated(draw):
    """A document with entities, tokens with missing or blocked annotation, and white space."""
    words = draw(st.lists(st.sampled_from(["a", "New", "york", "\n", " ", "\t\n"]), max_size=8))
    doc = Doc(VOCAB, words, draw(st.lists(st.booleans(), min_size=len(words), max_size=len(words))))
    parts = {"entity": [], "missing": [], "blocked": [], "outside": []}
    start = 0
    while start < len(doc):
        end = min(len(doc), start + draw(st.integers(1, 3)))
        kind = draw(st.sampled_from(sorted(parts)))
        parts[kind].append(Span(doc, start, end, label="X" if kind == "entity" else ""))
        start = end
    if draw(st.booleans()):
        doc.set_ents(parts["entity"], missing=parts["missing"], blocked=parts["blocked"], default="outside")
    return doc


def as_predicted(doc):
    """The same tokens without annotation."""
    return Doc(doc.vocab, [token.text for token in doc], [bool(token.whitespace_) for token in doc])


def without_white_space(doc):
    """Only the other tokens, with the rest of the entities."""
    words = [token.i for token in doc if not token.is_space]
    left = Doc(doc.vocab, [doc[i].text for i in words])
    if doc.has_annotation("ENT_IOB"):
        inside = {i: span for span in doc.ents for i in range(span.start, span.end)}
        parts = {"entity": [], "missing": [], "blocked": [], "outside": []}
        for span in doc.ents:
            own = [new for new, old in enumerate(words) if inside.get(old) == span]
            if own:
                parts["entity"].append(Span(left, own[0], own[-1] + 1, label=span.label_))
        for new, old in enumerate(words):
            if old not in inside:
                kind = {0: "missing", 2: "outside", 3: "blocked"}[doc[old].ent_iob]
                parts[kind].append(left[new : new + 1])
        left.set_ents(parts.pop("entity"), **parts, default="missing")
    return left


@given(annotated())
def test_tags_are_those_that_spacy_aligns_without_white_space(doc):
    left = without_white_space(doc)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = iter(Example(as_predicted(left), left).get_aligned_ner())
        found = gold_tags(Example(as_predicted(doc), doc), None, "sequence_labeler")
    assert found == [None if token.is_space else next(expected) for token in doc]


def put(doc, spans_key, spans):
    """Give a document spans, as (start, end, label), where a labeler with this key looks for them."""
    made = [Span(doc, start, end, label=label) for start, end, label in spans]
    if spans_key is None:
        doc.set_ents(made)
    else:
        doc.spans[spans_key] = made
    return doc


def taken(doc, spans_key):
    """The words, labels and scores of the spans that a labeler with this key has written."""
    group = doc.ents if spans_key is None else doc.spans[spans_key]
    scores = doc._.ent_scores if spans_key is None else group.attrs["scores"]
    return [(span.text.split(), span.label_, score) for span, score in zip(group, scores, strict=True)]


WHITES = [" ", "\n", "\t", "\r\n", "\u00a0", "\u2028 ", "\n\n\n"]


@pytest.mark.parametrize("scheme", ["iob2", "biluo"])
@pytest.mark.parametrize("spans_key", [None, "slots"])
def test_white_space_has_no_part_in_spans_scores_and_loss(make_base, scheme, spans_key):
    """However strongly the model predicts a city for it."""
    nlp = build(make_base(num_hidden_layers=2), heads=())
    pipe = labeler(nlp, scheme=scheme, spans_key=spans_key)
    nlp.initialize(lambda: corpus(nlp, spans_key))
    tag = {name: number for number, name in enumerate(pipe.scheme.tags)}
    begin, end, alone = "B-city", "I-city" if scheme == "iob2" else "L-city", "B-city" if scheme == "iob2" else "U-city"
    plain = nlp.make_doc("fly to new york or boston")
    rows = np.zeros((len(plain), len(tag)), "f")
    rows[range(6), [tag[name] for name in ("O", "O", begin, end, "O", alone)]] = 3.0
    city = np.where(np.arange(len(tag)) == tag[alone], 9.0, 0.0).astype("f")

    def predicted(doc, scores):
        pipe.model = Model("given", lambda model, docs, is_train: ([scores], lambda gradient: gradient))
        pipe.set_annotations([doc], pipe.predict([doc]))
        return taken(doc, spans_key)

    expected = predicted(as_predicted(plain), rows)
    assert [words for words, *_ in expected] == [["new", "york"], ["boston"]]
    gold = put(as_predicted(plain), spans_key, [(2, 4, "city"), (5, 6, "city")])
    loss, _ = pipe.get_loss([Example(plain, gold)], [rows])
    for white in WHITES:
        for text in (
            f"fly{white} to {white}new {white}york or{white}boston{white}",
            f"{white}fly to new york or boston",
        ):
            doc = nlp.make_doc(text)
            words = [token.i for token in doc if not token.is_space]
            assert len(words) == len(plain) < len(doc)
            scores = np.tile(city, (len(doc), 1))
            scores[words] = rows
            gold = put(
                as_predicted(doc), spans_key, [(words[2], words[3] + 1, "city"), (words[5], words[5] + 1, "city")]
            )
            found, (gradient,) = pipe.get_loss([Example(as_predicted(doc), gold)], [scores])
            assert found == pytest.approx(loss)
            assert not np.delete(gradient, words, axis=0).any() and gradient[words].all()
            assert predicted(doc, scores) == expected
    for text in ("\n", "  ", "\t\n \u3000"):
        doc = nlp.make_doc(text)
        assert predicted(doc, np.tile(city, (len(doc), 1))) == []


@pytest.mark.parametrize("output", ["tokens", "pieces"])
def test_a_trained_labeler_finds_the_same_however_words_are_spaced(make_base, output):
    """Each run of white space is shown to the model as one space."""
    nlp = build(make_base(), heads=(), output=output, white_space="blank")
    labeler(nlp)
    fit(nlp, corpus(nlp), steps=40)
    expected = [taken(doc, None) for doc in nlp.pipe(TEXTS)]
    assert all(expected)
    for white in WHITES:
        spaced = nlp.pipe(text.replace(" ", f" {white}") + white for text in TEXTS)
        for before, after in zip(expected, (taken(doc, None) for doc in spaced), strict=True):
            assert [one[:2] for one in before] == [one[:2] for one in after]
            assert [one[2] for one in before] == pytest.approx([one[2] for one in after], abs=1e-4)
    assert nlp(" \n").ents == ()


@pytest.mark.parametrize("spans_key", [None, "slots"])
def test_gold_spans_are_trimmed_with_a_warning(make_base, spans_key):
    """In training and in scores; a span of only white space is dropped."""
    nlp = build(make_base(num_hidden_layers=2), heads=())
    pipe = labeler(nlp, spans_key=spans_key)

    def example(*places):
        # fly to [\n] boston [\n] and [ ] rome [\n]
        doc = nlp.make_doc("fly to \n boston\n and  rome \n")
        return Example(as_predicted(doc), put(doc, spans_key, [(start, end, "city") for start, end in places]))

    def places(doc):
        return [(span.start, span.end) for span in (doc.ents if spans_key is None else doc.spans["slots"])]

    exact, loose, white = example((3, 4), (7, 8)), example((2, 5), (6, 9)), example((2, 3))
    said = r"\(city\).*begins or ends in white space.*'sequence_labeler' it counts as 'boston'"
    with pytest.warns(UserWarning, match=said):
        nlp.initialize(lambda: [loose])
    with warnings.catch_warnings():
        # The warning comes only once.
        warnings.simplefilter("error")
        assert gold_tags(loose, spans_key, pipe.name) == gold_tags(exact, spans_key, pipe.name)
        assert set(gold_tags(white, spans_key, pipe.name)) == {None, "O"}
        scores = [np.random.default_rng(0).normal(size=(len(exact.predicted), pipe.scheme.n_tags)).astype("f")]
        assert pipe.get_loss([loose], scores)[0] == pipe.get_loss([exact], scores)[0]
        key = "ents" if spans_key is None else "spans_slots"
        for one in (exact, loose):
            before = places(one.reference)
            put(one.predicted, spans_key, [(3, 4, "city"), (7, 8, "city")])
            assert pipe.score([one])[f"{key}_f"] == 1.0
            assert places(one.reference) == before
        put(white.predicted, spans_key, [])
        put(exact.predicted, spans_key, [(3, 4, "city"), (7, 8, "city")])
        assert pipe.score([white, exact])[f"{key}_f"] == 1.0
    other = build(make_base(num_hidden_layers=2), heads=())
    late = labeler(other, spans_key=spans_key)
    other.initialize(lambda: [exact])
    with pytest.warns(UserWarning, match=r"begins or ends in white space.*it is left out"):
        late.score([white])


@pytest.mark.parametrize(("scheme", "spans_key"), [("iob2", None), ("biluo", "slots"), ("biluo", None)])
def test_it_learns_spans_by_heart(make_base, scheme, spans_key):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    labeler(nlp, scheme=scheme, spans_key=spans_key)
    data = corpus(nlp, spans_key)
    losses = fit(nlp, data)
    assert losses["sequence_labeler"] < 0.1
    for doc, (spans, _) in zip(nlp.pipe(TEXTS), GOLD, strict=True):
        group = list(doc.ents) if spans_key is None else list(doc.spans["slots"])
        assert [(span.start_char, span.end_char, span.label_) for span in group] == spans
        scores = doc._.ent_scores if spans_key is None else doc.spans["slots"].attrs["scores"]
        assert len(scores) == len(group)
        assert all(0.5 < score <= 1 for score in scores)
    result = nlp.evaluate(data)
    key = "ents" if spans_key is None else "spans_slots"
    assert result[f"{key}_f"] == result[f"{key}_p"] == result[f"{key}_r"] == 1.0
    assert set(result[f"{key}_per_type"]) == {"city", "artist", "playlist"}


def test_it_needs_no_transformer():
    nlp = spacy.blank("en")
    labeler(nlp, tok2vec=CNN)
    fit(nlp, corpus(nlp))
    assert [found(doc) for doc in nlp.pipe(TEXTS)] == [spans for spans, _ in GOLD]


def test_several_labelers_share_a_transformer(make_base):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    labeler(nlp)
    labeler(nlp, name="second", spans_key="slots")
    data = corpus(nlp)
    for example in data:
        example.reference.spans["slots"] = [Span(example.reference, 0, 1, label="verb")]
    fit(nlp, data)
    for doc, (spans, _) in zip(nlp.pipe(TEXTS), GOLD, strict=True):
        assert found(doc) == spans
        assert [(span.text, span.label_) for span in doc.spans["slots"]] == [(doc[0].text, "verb")]


def test_it_saves_and_loads(trained, tmp_path):
    before = [(found(doc), doc._.ent_scores) for doc in trained.pipe(TEXTS)]
    trained.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    assert loaded.get_pipe("sequence_labeler").labels == ("artist", "city", "playlist")
    again = [(found(doc), doc._.ent_scores) for doc in loaded.pipe(TEXTS)]
    assert [spans for spans, _ in again] == [spans for spans, _ in before]
    for (_, one), (_, other) in zip(before, again, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    data = type(trained).from_config(trained.config).from_bytes(trained.to_bytes())
    assert [found(doc) for doc in data.pipe(TEXTS)] == [spans for spans, _ in before]


def test_batches_and_empty_documents_do_not_matter(trained):
    alone = [trained(text) for text in TEXTS]
    mixed = [text for pair in zip(TEXTS, ["", " ", "", ""], strict=True) for text in pair]
    for size in (1, 3, 100):
        docs = list(trained.pipe(mixed, batch_size=size))
        assert [found(doc) for doc in docs[::2]] == [found(doc) for doc in alone]
        for doc, other in zip(docs[::2], alone, strict=True):
            assert doc._.ent_scores == pytest.approx(other._.ent_scores, abs=1e-5)
    assert [found(doc) for doc in trained.pipe(["", ""])] == [[], []]


def test_entities_of_an_earlier_component_are_kept(trained):
    doc = trained.make_doc(TEXTS[0])
    doc.set_ents([Span(doc, 10, 12, label="rule")])
    doc = trained(doc)
    assert trained(TEXTS[0])[10].ent_type_ == "city"
    assert [(ent.text, ent.label_) for ent in doc.ents] == [("boston tomorrow", "rule")]
    assert doc._.ent_scores == [None]


def test_blocked_tokens_stay_blocked(trained):
    doc = trained.make_doc(TEXTS[0])
    doc.set_ents([], blocked=[doc[10:11]], default="unmodified")
    doc = trained(doc)
    assert not doc.ents
    assert doc[10].ent_iob_ == "B"


def test_scores_of_an_earlier_labeler_are_kept(make_base):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    labeler(nlp)
    labeler(nlp, name="second")
    fit(nlp, corpus(nlp))
    for doc in nlp.pipe(TEXTS):
        assert doc.ents
        assert None not in doc._.ent_scores


def test_scores_stay_with_their_entities(trained):
    """Also if a later component replaces some of them, and in a document put together from several."""
    docs = list(trained.pipe(TEXTS))
    scores = [score for doc in docs for score in doc._.ent_scores]
    assert None not in scores and len(set(scores)) > 2
    assert Doc.from_docs(docs)._.ent_scores == scores
    doc, found = docs[0], docs[0].ents[0]
    doc.set_ents([Span(doc, 0, 1, label="rule"), found])
    assert doc._.ent_scores == [None, scores[0]]
    doc.set_ents([Span(doc, found.start, found.end, label="rule")])
    assert doc._.ent_scores == [None]
    doc.set_ents([found])
    assert found._.ent_score == scores[0]
    for name in ("ent_score", "ent_scores"):
        again = Doc(trained.vocab).from_json(doc.to_json(underscore=[name]))
        assert again._.ent_scores == pytest.approx([scores[0]])
    doc._.ent_scores = [0.5]
    assert doc.ents[0]._.ent_score == 0.5
    with pytest.raises(ValueError, match="as many scores as there are entities: 1"):
        doc._.ent_scores = []


def test_with_a_key_the_scores_that_choose_must_be_its_own(make_base):
    for weights, warned in (({"ents_f": 1.0}, 1), ({"spans_slots_f": 1.0, "ents_f": 0.0}, 0)):
        nlp = build(make_base(num_hidden_layers=2), heads=())
        labeler(nlp, spans_key="slots")
        nlp.config["training"]["score_weights"] = weights
        data = corpus(nlp, "slots")
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            nlp.initialize(lambda data=data: data)
        found = [one for one in raised if "Give training.score_weights.spans_slots_f a weight" in str(one.message)]
        assert len(found) == warned


def test_the_scores_of_several_labelers_must_count(make_base):
    """With the default weights no component computes ents_f; one that writes entities, or other weights, solve that."""
    for keys, weights, warned in (
        (("a", "b"), {"ents_f": 1.0}, 2),
        (("a", None), {"ents_f": 1.0}, 0),
        (("a", "b"), {"spans_a_f": 1.0, "ents_f": None}, 0),
    ):
        nlp = build(make_base(num_hidden_layers=2), heads=("textcat",))
        for key in keys:
            labeler(nlp, name=f"labeler_{key}", spans_key=key)
        nlp.config["training"]["score_weights"] = {"cats_micro_f": 0.5, **weights}
        data = corpus(nlp)
        for example in data:
            example.reference.spans["a"] = example.reference.spans["b"] = list(example.reference.ents)
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            nlp.initialize(lambda data=data: data)
        assert sum("it would make no difference" in str(one.message) for one in raised) == warned, keys


def test_labels_that_were_not_given_are_named(make_base):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    labeler(nlp)
    data = corpus(nlp)
    nlp.config["initialize"]["components"]["sequence_labeler"] = {"labels": ["city"]}
    with pytest.warns(UserWarning, match="labels that are not among the given ones: 'artist', 'playlist'"):
        nlp.initialize(lambda: data)


def test_tokens_without_annotation_are_not_learned(make_base):
    """Tokens with missing annotation must have no influence, whatever the model predicts for them."""
    nlp = build(make_base(num_hidden_layers=2), heads=())
    pipe = labeler(nlp)
    data = corpus(nlp)
    nlp.initialize(lambda: data)
    reference = nlp.make_doc(TEXTS[0])
    reference.set_ents([Span(reference, 9, 10, label="city")], missing=[Span(reference, 0, 9)], default="outside")
    example = Example(nlp.make_doc(TEXTS[0]), reference)
    scores = np.random.default_rng(0).normal(size=(len(reference), pipe.scheme.n_tags)).astype("f")
    loss, (gradient,) = pipe.get_loss([example], [scores])
    assert not gradient[:9].any()
    assert gradient[9:].all()
    changed = scores.copy()
    changed[:9] += 100
    assert pipe.get_loss([example], [changed])[0] == pytest.approx(loss)
    nothing = Example(nlp.make_doc(TEXTS[0]), nlp.make_doc(TEXTS[0]))
    loss, (gradient,) = pipe.get_loss([nothing], [scores])
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize("scheme", ["iob2", "biluo"])
def test_the_gradient_is_that_of_the_loss(make_base, scheme):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    pipe = labeler(nlp, scheme=scheme)
    data = corpus(nlp)
    nlp.initialize(lambda: data)
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=(len(example.predicted), pipe.scheme.n_tags)).astype("f") for example in data]
    _, gradients = pipe.get_loss(data, scores)
    for i, row, tag in ((0, 3, 0), (1, 4, 2), (3, 7, 5)):
        losses = []
        for sign in (1, -1):
            moved = [array.copy() for array in scores]
            moved[i][row, tag] += sign * 0.01
            losses.append(pipe.get_loss(data, moved)[0])
        assert gradients[i][row, tag] == pytest.approx(len(data) * (losses[0] - losses[1]) / 0.02, abs=2e-3)


def test_tokens_that_do_not_fit_have_no_part_in_the_loss(make_base):
    for key in (None, "slots"):
        nlp = build(make_base(num_hidden_layers=2), heads=())
        pipe = labeler(nlp, spans_key=key)
        data = corpus(nlp, key)
        nlp.initialize(lambda data=data: data)
        # "italian place in boston" as one token covers the entity and more.
        words = ["book", "a", "table", "for", "two", "at", "an", "italian place in boston", "tomorrow", "night"]
        example = Example(Doc(nlp.vocab, words=words), data[0].reference)
        scores = np.zeros((len(words), pipe.scheme.n_tags), "f")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _, (gradient,) = pipe.get_loss([example], [scores])
        assert [i for i, row in enumerate(gradient) if not row.any()] == [7]


@pytest.mark.parametrize("key", [None, "slots"])
def test_spans_are_aligned_by_their_text_where_spaces_differ(make_base, key):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    pipe = labeler(nlp, spans_key=key)
    reference = Doc(nlp.vocab, words=["Do", "n't", "go", ",", "New", "York", "!"])
    city = Span(reference, 4, 6, label="city")
    if key is None:
        reference.set_ents([city])
    else:
        reference.spans[key] = [city]
    predicted = Doc(
        nlp.vocab, ["Do", "n't", "go", ",", "New", "York", "!"], [False, True, False, True, True, False, False]
    )
    assert predicted.text == "Don't go, New York!"
    tags = gold_tags(Example(predicted, reference), pipe.spans_key, pipe.name)
    assert list(tags) == ["O", "O", "O", "O", "B-city", "L-city", "O"]


def test_labels_may_be_given(make_base):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    pipe = labeler(nlp)
    data = corpus(nlp)
    given = ["artist", "city", "planet", "playlist"]
    nlp.config["initialize"]["components"]["sequence_labeler"] = {"labels": given}
    nlp.initialize(lambda: data)
    assert pipe.label_data == given
    nlp.update(data, sgd=Adam(0.01))


# Bad input


def test_no_labels_at_all(make_base):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    labeler(nlp)
    empty = [Example(nlp.make_doc(text), nlp.make_doc(text)) for text in TEXTS]
    with pytest.raises(SettingError, match=r"no labels for 'sequence_labeler'.* has a span in doc\.ents.*components\."):
        nlp.initialize(lambda: empty)
    nlp.config["initialize"]["components"]["sequence_labeler"] = {"labels": []}
    with pytest.raises(SettingError, match="the list of labels of 'sequence_labeler' is empty"):
        nlp.initialize(lambda: corpus(nlp))


def test_a_gold_span_without_a_label_is_named(make_base):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    labeler(nlp, spans_key="slots")
    data = corpus(nlp, "slots")
    reference = data[1].reference
    reference.spans["slots"] = [Span(reference, 3, 5)]
    with pytest.raises(SettingError, match=r"'by miles' in the document 'play some jazz.*has an empty label"):
        nlp.initialize(lambda: data)


def test_the_number_of_outputs_may_be_given_if_it_fits(make_base):
    for n_tags, fits in ((13, True), (5, False)):
        nlp = build(make_base(num_hidden_layers=2), heads=())
        model = {"@architectures": "spacy-lsbillm.SequenceLabeler.v1", "nO": n_tags, "tok2vec": LISTENER}
        nlp.add_pipe("sequence_labeler", config={"model": model})
        data = corpus(nlp)
        if fits:
            nlp.initialize(lambda data=data: data)
            nlp.update(data, sgd=Adam(0.01))
        else:
            with pytest.raises(SettingError, match=r"nO = 5 does not fit .*: 3 labels .* are 13 tags"):
                nlp.initialize(lambda data=data: data)
    nlp = build(make_base(num_hidden_layers=2), heads=())
    model = {
        "@architectures": "spacy-lsbillm.PooledTextCat.v1",
        "nO": 5,
        "tok2vec": LISTENER,
        "exclusive_classes": True,
    }
    nlp.add_pipe("textcat", config={"model": model})
    data = corpus(nlp)
    for example in data:
        example.reference.cats = {"a": 1.0, "b": 0.0}
    with pytest.raises(SettingError, match="nO = 5 does not fit: there are 2 classes"):
        nlp.initialize(lambda: data)


def test_it_is_initialised_behind_empty_documents(make_base):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    labeler(nlp)
    data = [Example(nlp.make_doc(""), nlp.make_doc(""))] * 10 + corpus(nlp)
    nlp.initialize(lambda: data)
    nlp.update(data, sgd=Adam(0.01))


def test_labels_that_a_trained_labeler_does_not_have_are_named_once(make_base):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    labeler(nlp)
    data = corpus(nlp)
    nlp.initialize(lambda: data)
    reference = data[1].reference
    reference.set_ents([Span(reference, 3, 5, label="moon")])
    with pytest.warns(UserWarning, match="the label 'moon' in the document 'play.*left out of the loss") as raised:
        for _ in range(2):
            nlp.update(data, sgd=Adam(0.01))
    assert len(raised) == 1


def test_gold_spans_that_overlap_are_named(make_base):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    labeler(nlp, spans_key="slots")
    data = corpus(nlp, "slots")
    reference = data[1].reference
    reference.spans["slots"] = [Span(reference, 3, 5, label="a"), Span(reference, 4, 6, label="b")]
    with pytest.raises(SettingError, match=r"'by miles' \(a\) and 'miles davis' \(b\) overlap in .*play some jazz"):
        nlp.initialize(lambda: data)


def test_gold_spans_that_overlap_are_named_in_scoring_too(make_base):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    labeler(nlp, spans_key="slots")
    data = corpus(nlp, "slots")
    nlp.initialize(lambda: data)
    reference = data[1].reference
    reference.spans["slots"] = [Span(reference, 3, 5, label="artist"), Span(reference, 4, 6, label="artist")]
    with pytest.warns(UserWarning, match="overlap in .*play some jazz.*one of the two counts as missed") as raised:
        nlp.evaluate(data)
        nlp.evaluate(data)
    assert len(raised) == 1


def test_labels_that_training_never_had_are_named_once(trained):
    data = corpus(trained)
    reference = data[2].reference
    reference.set_ents([Span(reference, 4, 5, label="capital")])
    with pytest.warns(UserWarning, match="'capital' of 'paris' in the document 'will it rain") as raised:
        result = trained.evaluate(data)
        trained.evaluate(data)
    assert len(raised) == 1
    assert result["ents_r"] == 0.75


def test_bad_settings(make_base):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    with pytest.raises(SettingError, match="scheme = 'bio'"):
        labeler(nlp, scheme="bio")
    with pytest.raises(SettingError, match="pooling = 'first' is not allowed"):
        textcat(nlp, pooling="first")
    # Any default would be wrong for one of the two components.
    with pytest.raises(ValueError, match="exclusive_classes"):
        nlp.add_pipe("textcat", config={"model": {"@architectures": "spacy-lsbillm.PooledTextCat.v1", "tok2vec": CNN}})


# PooledTextCat

VOCAB = spacy.blank("en").vocab
POOLINGS = ["last", "mean", "max", "attention"]


@pytest.mark.parametrize(
    ("pooling", "exclusive"), [*((name, True) for name in POOLINGS), ("last", False), ("attention", False)]
)
def test_it_learns_classes_by_heart(make_base, tmp_path, pooling, exclusive):
    nlp = build(make_base(num_hidden_layers=2), heads=(), depth=2)
    textcat(nlp, pooling, exclusive)
    data = corpus(nlp)
    fit(nlp, data)
    for doc, (_, intent) in zip(nlp.pipe(TEXTS), GOLD, strict=True):
        assert max(doc.cats, key=doc.cats.get) == intent
        assert doc.cats[intent] > 0.8
        if exclusive:
            assert sum(doc.cats.values()) == pytest.approx(1)
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    for doc, other in zip(nlp.pipe(TEXTS), loaded.pipe(TEXTS), strict=True):
        assert doc.cats == pytest.approx(other.cats, abs=1e-5)


@pytest.mark.parametrize("exclusive", [True, False])
def test_empty_documents_among_others(make_base, exclusive):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    textcat(nlp, "mean", exclusive)
    data = corpus(nlp)
    empty = Example(nlp.make_doc(""), nlp.make_doc(""))
    empty.reference.cats = dict.fromkeys(data[0].reference.cats, 0.0)
    fit(nlp, [empty, *data, empty], steps=5)
    alone = [nlp(text).cats for text in TEXTS]
    docs = list(nlp.pipe(["", *TEXTS, "", " "]))
    for doc, cats in zip(docs[1:5], alone, strict=True):
        assert doc.cats == pytest.approx(cats, abs=1e-5)
    assert docs[0].cats == pytest.approx(docs[5].cats)
    assert [doc.cats for doc in nlp.pipe(["", ""])] == [dict.fromkeys(alone[0], 0.0)] * 2


def test_it_works_over_any_tok2vec():
    nlp = spacy.blank("en")
    textcat(nlp, "mean", tok2vec=CNN)
    fit(nlp, corpus(nlp))
    assert [max(doc.cats, key=doc.cats.get) for doc in nlp.pipe(TEXTS)] == [intent for _, intent in GOLD]


def vectors_of(arrays):
    """A model that returns these arrays and collects the gradient."""
    seen = []

    def forward(model, docs, is_train):
        def backprop(gradients):
            seen.append(gradients)
            return docs

        return arrays, backprop

    return Model("vectors", forward, dims={"nO": arrays[0].shape[1]}), seen


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
@settings(max_examples=20)
@given(lengths=st.lists(st.integers(0, 4), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_pooling_is_what_it_says_and_so_is_its_gradient(pooling, exclusive, lengths, seed):
    """Compared with plain numpy, with rows of zeros in between, which are ignored."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(length, 3)).astype("f") for length in lengths]
    for array in arrays:
        array[rng.random(len(array)) < 0.3] = 0
    tok2vec, seen = vectors_of(arrays)
    truth = rng.random((len(arrays), 2)).astype("f")
    model = build_pooled_textcat(tok2vec, exclusive, pooling)
    docs = [Doc(VOCAB, ["a"] * length) for length in lengths]
    model.initialize(X=docs, Y=truth)
    linear = model.get_ref("output_layer")
    linear.set_param("W", get_current_ops().asarray(rng.normal(size=(2, 3)).astype("f")))
    weight = linear.get_param("W")
    query = next((node.get_param("Q") for node in model.walk() if node.name == "para-attn"), None)

    def by_hand():
        pooled = []
        for array in arrays:
            # In float32, 1 minus a probability near 1 is too coarse for finite differences.
            rows = array[array.any(axis=1)].astype("float64")
            if not len(rows):
                rows = np.zeros((1, 3))
            if pooling == "attention":
                shares = np.exp(rows @ query)
                pooled.append((rows * (shares / shares.sum())[:, None]).sum(0))
            else:
                pooled.append({"last": rows[-1], "mean": rows.mean(0), "max": rows.max(0)}[pooling])
        scores = np.array(pooled) @ weight.T
        # Empty documents have no class.
        filled = np.array(lengths)[:, None] > 0
        if exclusive:
            powers = np.exp(scores - scores.max(1, keepdims=True))
            return filled * powers / powers.sum(1, keepdims=True)
        return filled / (1 + np.exp(-scores))

    found, backprop = model.begin_update(docs)
    assert np.allclose(found, by_hand(), atol=1e-5)
    backprop(found - truth)
    (gradients,) = seen
    assert [gradient.shape for gradient in gradients] == [array.shape for array in arrays]
    for gradient, array in zip(gradients, arrays, strict=True):
        assert not gradient[~array.any(axis=1)].any()

    # The gradient of cross-entropy by finite differences; with a softmax, the truth must be a distribution.
    if exclusive:
        truth /= truth.sum(1, keepdims=True)
        seen.clear()
        backprop(found - truth)
        (gradients,) = seen

    def loss():
        filled = np.array(lengths) > 0
        probabilities, wanted = by_hand().astype("float64")[filled], truth[filled]
        missed = 0 if exclusive else (1 - wanted) * np.log(1 - probabilities)
        return -(wanted * np.log(probabilities) + missed).sum()

    step = 1e-2
    for gradient, array in zip(gradients, arrays, strict=True):
        real = array.any(axis=1)
        highest = np.sort(array[real][:, 0])[-2:]
        tied = len(highest) == 2 and highest[1] - highest[0] < 2 * step
        if not real.any() or (pooling == "max" and tied):
            continue
        row = np.flatnonzero(real)[0]
        before, losses = array[row, 0], []
        for sign in (1, -1):
            array[row, 0] = before + sign * step
            losses.append(loss())
        array[row, 0] = before
        assert gradient[row, 0] == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=1e-2)


def test_seqeval_gives_the_same_score(trained):
    """Strict IOB2 micro F1 of noisy predictions against gold spans."""
    seqeval = pytest.importorskip("seqeval.metrics", reason="the scores beside seqeval's need it: pip install seqeval")
    from seqeval.scheme import IOB2

    rng = np.random.default_rng(0)
    labels = ("artist", "city")

    def noisy(doc):
        spans, at = [], 0
        while at < len(doc):
            length = int(rng.integers(1, 3))
            if rng.random() < 0.5:
                spans.append(Span(doc, at, min(len(doc), at + length), label=str(rng.choice(labels))))
            at += length
        doc.set_ents(spans)
        return doc

    def tags(doc):
        return [f"{token.ent_iob_}-{token.ent_type_}" if token.ent_type_ else "O" for token in doc]

    data = [Example(noisy(trained.make_doc(t)), noisy(trained.make_doc(t))) for t in TEXTS * 25]
    ours = trained.get_pipe("sequence_labeler").score(data)
    gold, predicted = ([tags(getattr(example, side)) for example in data] for side in ("reference", "predicted"))
    theirs = {"mode": "strict", "scheme": IOB2}
    assert 0.05 < ours["ents_f"] < 0.9
    assert ours["ents_f"] == pytest.approx(seqeval.f1_score(gold, predicted, **theirs))
    assert ours["ents_p"] == pytest.approx(seqeval.precision_score(gold, predicted, **theirs))
    assert ours["ents_r"] == pytest.approx(seqeval.recall_score(gold, predicted, **theirs))


def test_scores_survive_in_a_docbin(trained):
    docs = list(trained.pipe(TEXTS))
    stored = DocBin().from_bytes(DocBin(docs=docs, store_user_data=True).to_bytes())
    assert [list(doc._.ent_scores) for doc in stored.get_docs(trained.vocab)] == [doc._.ent_scores for doc in docs]


@pytest.fixture(scope="module")
def trained_slots(make_base):
    nlp = build(make_base(num_hidden_layers=2), heads=())
    labeler(nlp, spans_key="slots")
    fit(nlp, corpus(nlp, "slots"), steps=40)
    return nlp


@pytest.fixture(params=[None, "slots"])
def either(request, trained, trained_slots):
    """A trained pipeline, and where its spans are."""
    return trained if request.param is None else trained_slots, request.param


def test_spans_below_the_threshold_are_left_out(either, monkeypatch):
    nlp, spans_key = either
    pipe = nlp.get_pipe("sequence_labeler")
    before = [taken(doc, spans_key) for doc in nlp.pipe(TEXTS)]
    scores = sorted(score for doc in before for *_, score in doc)
    assert scores[0] < scores[-1]
    monkeypatch.setattr(pipe, "threshold", (scores[0] + scores[-1]) / 2)
    after = [taken(doc, spans_key) for doc in nlp.pipe(TEXTS)]
    assert after == [[span for span in doc if span[2] >= pipe.threshold] for doc in before]
    monkeypatch.setattr(pipe, "threshold", {"city": 1.0})
    after = [taken(doc, spans_key) for doc in nlp.pipe(TEXTS)]
    assert after == [[span for span in doc if span[1] != "city"] for doc in before]
    monkeypatch.setattr(pipe, "threshold", {"planet": 0.5})
    with pytest.raises(SettingError, match=r"names labels that it does not have: 'planet'\. It has: 'artist', 'city'"):
        nlp(TEXTS[0])


def test_a_threshold_of_an_unknown_label_is_refused_before_the_training():
    nlp = spacy.blank("xx")
    labeler(nlp, tok2vec=CNN, threshold={"city": 0.5, "planet": 0.5})
    data = corpus(nlp)
    with pytest.raises(SettingError, match=r"threshold of 'sequence_labeler' names labels .*: 'planet'\. It has"):
        nlp.initialize(lambda: data)


def test_settings_of_training_cannot_be_changed_afterwards(trained, tmp_path):
    trained.to_disk(tmp_path)
    for setting, value in (("spans_key", "slots"), ("scheme", "iob2"), ("transitions", "learned")):
        said = f"{setting} = '{value}' of 'sequence_labeler' cannot be changed after training: it was trained with "
        with pytest.raises(SettingError, match=said):
            spacy.load(tmp_path, config={f"components.sequence_labeler.{setting}": value})


def test_settings_of_confidence_are_read_from_the_config(trained, tmp_path):
    trained.to_disk(tmp_path)
    for threshold, n in ((1.0, 0), ({"city": 1.0}, 2), (None, 4)):
        config = Config().from_disk(tmp_path / "config.cfg")
        config["components"]["sequence_labeler"]["threshold"] = threshold
        config.to_disk(tmp_path / "config.cfg")
        loaded = spacy.load(tmp_path)
        loaded.to_disk(tmp_path / "again")
        for nlp in (loaded, spacy.load(tmp_path / "again")):
            assert sum(len(doc.ents) for doc in nlp.pipe(TEXTS)) == n


def test_scores_can_be_switched_off(either, monkeypatch):
    nlp, spans_key = either
    before = [[span[:2] for span in taken(doc, spans_key)] for doc in nlp.pipe(TEXTS)]
    error = "ents_ece" if spans_key is None else "spans_slots_ece"
    assert 0 < nlp.evaluate(corpus(nlp, spans_key))[error] < 1
    monkeypatch.setattr(nlp.get_pipe("sequence_labeler"), "scores", False)
    for doc, spans in zip(nlp.pipe(TEXTS), before, strict=True):
        group = doc.ents if spans_key is None else doc.spans[spans_key]
        assert [(span.text.split(), span.label_) for span in group] == spans
        assert spans_key is not None or set(doc._.ent_scores) <= {None}
        assert spans_key is None or "scores" not in group.attrs
    assert nlp.evaluate(corpus(nlp, spans_key))[error] is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"threshold": 1.5}, r"threshold = 1\.5 of 'sequence_labeler' is not allowed\. Use a number from 0 to 1"),
        ({"threshold": {"city": -0.1}}, "a table of such numbers by label, or null"),
        ({"threshold": 0.5, "scores": False}, "needs scores = true"),
    ],
)
def test_bad_settings_of_confidence(config, message):
    with pytest.raises(SettingError, match=message):
        labeler(spacy.blank("xx"), **config)


def test_a_group_of_spans_needs_a_name():
    with pytest.raises(SettingError, match=r"spans_key = '' of 'sequence_labeler' is not allowed.*null for doc\.ents"):
        labeler(spacy.blank("xx"), spans_key="")


@pytest.mark.parametrize(("name", "exclusive"), [("textcat", True), ("textcat_multilabel", False)])
def test_classes_have_the_probabilities_that_users_of_textcat_expect(make_base, name, exclusive):
    """One distribution if classes exclude each other; otherwise each is between 0 and 1 on its own."""
    nlp = build(make_base(num_hidden_layers=2), heads=())
    model = {
        "@architectures": "spacy-lsbillm.PooledTextCat.v1",
        "exclusive_classes": exclusive,
        "tok2vec": LISTENER,
    }
    nlp.add_pipe(name, config={"model": model})
    data = corpus(nlp)
    fit(nlp, data, steps=20)
    for example, doc in zip(data, nlp.pipe(TEXTS), strict=True):
        assert set(doc.cats) == set(example.reference.cats)
        assert all(0 < score < 1 for score in doc.cats.values())
        assert not exclusive or sum(doc.cats.values()) == pytest.approx(1, abs=1e-5)
