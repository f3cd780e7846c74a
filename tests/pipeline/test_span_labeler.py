"""The `span_labeler`: nested and overlapping spans."""

import pickle
import warnings

import numpy as np
import pytest
import spacy
from pipelines import LISTENER, build
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.util import fix_random_seed
from thinc.api import Adam, Model

from spacy_lsbillm.errors import SettingError, StorageError
from spacy_lsbillm.layers import build_span_labeler, score_blocks
from spacy_lsbillm.pipeline.whole_batch import share_of

pytestmark = pytest.mark.any_stack

WIDTH = 5
# Spans nested three deep, the same words with two labels, one that crosses another's end, and a text without spans.
GOLD = [
    (
        "the mayor of the city of new york met the chief of the bank of england",
        [(0, 8, "who"), (3, 8, "place"), (6, 8, "place"), (9, 16, "who"), (12, 16, "place"), (12, 16, "group")],
    ),
    ("a friend of my uncle in paris", [(0, 5, "who"), (3, 5, "who"), (3, 7, "who"), (6, 7, "place")]),
    ("nobody was there", []),
]
TEXTS = [text for text, _ in GOLD]


def make_doc(nlp, text, spans, key="sc"):
    doc = nlp.make_doc(text)
    doc.spans[key] = [Span(doc, start, end, label=label) for start, end, label in spans]
    return doc


def corpus(nlp, key="sc", gold=GOLD):
    return [Example(nlp.make_doc(text), make_doc(nlp, text, spans, key)) for text, spans in gold]


def found(doc, key="sc"):
    return [(span.start, span.end, span.label_) for span in doc.spans[key]]


def close(one, other):
    """Whether two lists have the same spans with about the same scores."""
    return found(one) == found(other) and np.allclose(
        one.spans["sc"].attrs["scores"], other.spans["sc"].attrs["scores"], atol=1e-4
    )


def word_vectors():
    """A layer without weights that gives each token a vector by its text. It keeps the last gradient."""

    def forward(model, docs, is_train):
        def of(token):
            return np.random.default_rng(sum(map(ord, token.text))).normal(size=WIDTH)

        def backprop(gradient):
            model.attrs["gradient"] = gradient
            return docs

        rows = [np.array([of(token) for token in doc], dtype="f").reshape(len(doc), WIDTH) for doc in docs]
        return rows, backprop

    return Model("word_vectors", forward, dims={"nO": WIDTH})


def make_layer(labels=3, longest=4, **settings):
    """A scorer with random weights over `word_vectors`."""
    fix_random_seed(0)
    model = build_span_labeler(word_vectors(), hidden_size=4, **settings)
    model.set_dim("nO", labels)
    model.set_dim("nL", longest)
    model.initialize(X=[Doc(spacy.blank("xx").vocab, ["a"])])
    rng = np.random.default_rng(0)
    for node in model.walk():
        for name in node.param_names:
            node.set_param(name, rng.normal(size=node.get_param(name).shape).astype("f"))
    return model


def blank(**config):
    """A pipeline with only the labeler, over `word_vectors`, which need no training."""
    nlp = spacy.blank("xx")
    pipe = nlp.add_pipe("span_labeler", config=config)
    pipe.model = build_span_labeler(word_vectors(), hidden_size=8)
    return nlp, pipe


@pytest.fixture(scope="module")
def trained(make_base):
    nlp = build(make_base(), heads=())
    nlp.add_pipe("span_labeler", config={"model": {"tok2vec": LISTENER}})
    data = corpus(nlp)
    fix_random_seed(0)
    nlp.initialize(lambda: data)
    optimizer = Adam(0.005)
    for _ in range(60):
        nlp.update(data, sgd=optimizer)
    return nlp


def test_nested_spans_are_learned_by_heart(trained):
    for doc, (_, spans) in zip(trained.pipe(TEXTS), GOLD, strict=True):
        assert sorted(found(doc)) == sorted(spans)
        # In text order.
        assert found(doc) == sorted(found(doc), key=lambda span: span[:2])
        scores = doc.spans["sc"].attrs["scores"]
        assert len(scores) == len(spans) and all(0.5 <= score <= 1 for score in scores)
    scores = trained.evaluate(corpus(trained))
    assert scores["spans_sc_f"] == scores["spans_sc_p"] == scores["spans_sc_r"] == 1.0
    assert set(scores["spans_sc_per_type"]) == {"who", "place", "group"}


def test_batches_and_empty_documents_do_not_matter(trained):
    alone = [trained(text) for text in TEXTS]
    mixed = [text for pair in zip(TEXTS, ["", " \n", ""], strict=True) for text in pair]
    for size in (1, 4, 100):
        docs = list(trained.pipe(mixed, batch_size=size))
        assert all(close(*pair) for pair in zip(docs[::2], alone, strict=True))
        assert not any(found(doc) for doc in docs[1::2])
    assert [found(doc) for doc in trained.pipe(["", " "])] == [[], []]


def test_it_saves_loads_and_is_pickled(trained, tmp_path):
    trained.to_disk(tmp_path)
    before = [trained(text) for text in TEXTS]
    for other in (
        spacy.load(tmp_path),
        type(trained).from_config(trained.config).from_bytes(trained.to_bytes()),
        pickle.loads(pickle.dumps(trained)),
    ):
        pipe = other.get_pipe("span_labeler")
        # The config has null.
        assert (pipe.max_length, pipe.labels) == (8, ("group", "place", "who"))
        assert all(close(*pair) for pair in zip(other.pipe(TEXTS), before, strict=True))


def test_the_threshold_is_that_of_the_config(trained, tmp_path):
    trained.to_disk(tmp_path)
    config = {"components.span_labeler.threshold": 0.0}
    n_words = len(trained.make_doc(TEXTS[1]))
    doc = spacy.load(tmp_path, config=config)(TEXTS[1])
    # All spans of the document with all labels.
    assert len(found(doc)) == len(set(found(doc))) == 3 * n_words * (n_words + 1) / 2
    none = spacy.load(tmp_path, config={"components.span_labeler.threshold": 1.0})
    assert found(none(TEXTS[1])) == []


def test_settings_of_training_cannot_be_changed_afterwards(trained, tmp_path):
    trained.to_disk(tmp_path)
    for setting, value, said in (("spans_key", "other", "'sc'"), ("max_length", 3, "8")):
        with pytest.raises(SettingError, match=f"{setting} = {value!r} of .* cannot be changed .* with {said}"):
            spacy.load(tmp_path, config={f"components.span_labeler.{setting}": value})


def test_files_that_do_not_fit_are_named(trained, tmp_path):
    trained.to_disk(tmp_path)
    folder = tmp_path / "span_labeler"
    (folder / "seal.json").unlink(missing_ok=True)
    pipe = trained.get_pipe("span_labeler")
    try:
        pipe.cfg["max_length"] = 9
        pipe.to_disk(folder)
    finally:
        pipe.cfg["max_length"] = 8
    with pytest.raises(StorageError, match="spans of 8 words, its settings have 3 and 9"):
        spacy.load(tmp_path)


def test_each_score_is_that_of_the_formula():
    model, vocab = make_layer(), spacy.blank("xx").vocab
    docs = [Doc(vocab, ["a", "new", "york", "bank", "\n", "of"]), Doc(vocab, []), Doc(vocab, ["b", "c"])]
    halves, output = model.get_ref("halves").layers[1], model.get_ref("output_layer")
    of_length, weights = model.get_param("length"), output.get_param("W").reshape(3, 5, 4)
    bias = output.get_param("b").reshape(3, 5)
    for doc, scores in zip(docs, model.predict(docs), strict=True):
        vectors = model.get_ref("tok2vec").predict([doc])[0][[not token.is_space for token in doc]]
        hidden = np.maximum(vectors @ halves.get_param("W").T + halves.get_param("b"), 0)
        assert scores.shape == (len(hidden), 3, 4)
        for first, label, longer in np.ndindex(scores.shape):
            if first + longer >= len(hidden):
                assert scores[first, label, longer] == -np.inf
                continue
            begin, end = hidden[first, :4], np.append(hidden[first + longer, 4:], 1.0)
            expected = (weights[label] @ begin + bias[label]) @ end + of_length[label, longer]
            assert scores[first, label, longer] == pytest.approx(expected, abs=1e-4)


def test_gradients_are_finite_differences():
    """The gradients of the weights of all layers, and of the input vectors."""
    model, vocab = make_layer(block_size=7), spacy.blank("xx").vocab
    docs = [Doc(vocab, ["a", "new", "\n", "york", "bank", "of"]), Doc(vocab, ["b", "c"])]
    rng = np.random.default_rng(1)
    vectors = model.get_ref("tok2vec").predict(docs)
    tok2vec = model.layers[0]

    def given(model, docs, is_train):
        return vectors, lambda gradient: model.attrs.update(gradient=gradient)

    tok2vec._func = given
    scores, backprop = model(docs, is_train=True)
    weights = [rng.normal(size=part.shape).astype("f") for part in scores]

    def total():
        found = (np.where(np.isfinite(part), part, 0.0) for part in model.predict(docs))
        return sum(float((part.astype("d") * weight).sum()) for part, weight in zip(found, weights, strict=True))

    backprop(weights)
    pairs = list(zip(vectors, tok2vec.attrs["gradient"], strict=True))
    for node in model.walk():
        pairs += [(node.get_param(name), node.get_grad(name)) for name in node.param_names]
    assert len(pairs) == 7
    for values, gradient in pairs:
        direction = rng.normal(size=values.shape).astype("f")
        step = np.float32(1e-3)
        values += step * direction
        above = total()
        values -= 2 * step * direction
        below = total()
        values += step * direction
        assert (above - below) / (2 * step) == pytest.approx(float((gradient * direction).sum()), rel=0.01, abs=0.02)


@pytest.mark.parametrize("block_size", [1, 50, 333])
def test_blocks_are_the_whole_and_are_small(block_size):
    model, vocab = make_layer(), spacy.blank("xx").vocab
    texts = [["a", "new", "york"], [], ["bank", " ", "of", "england"] * 30, ["b"]]
    docs = [Doc(vocab, words) for words in texts]
    model.attrs["block_size"] = block_size
    parts = list(score_blocks(model, docs))
    whole = np.concatenate(model.predict(docs))
    assert [at for at, _ in parts] == list(np.cumsum([0, *(len(part) for _, part in parts[:-1])]))
    assert np.allclose(np.concatenate([part for _, part in parts]), whole, atol=1e-5)
    # At least one word per block: 3 labels of a window of 5 numbers.
    assert len(parts) > 1 and max(part.size for _, part in parts) <= max(block_size, 3 * 5)


def test_the_loss_is_the_cross_entropy_of_each_label_of_each_span():
    nlp, pipe = blank()
    data = corpus(nlp)
    nlp.initialize(lambda: data)
    rng = np.random.default_rng(0)
    docs = [example.predicted for example in data]
    scores = [np.where(np.isfinite(part), rng.normal(size=part.shape), part) for part in pipe.model.predict(docs)]
    expected, words = 0.0, sum(map(len, docs))
    loss, gradient = pipe.get_loss(data, scores)
    for example, part, slope in zip(data, scores, gradient, strict=True):
        gold = {(first, last, label) for first, last, label in found(example.reference)}
        for first, label, longer in np.ndindex(part.shape):
            if first + longer >= len(part):
                assert slope[first, label, longer] == 0
                continue
            right = (first, first + longer + 1, pipe.labels[label]) in gold
            probability = 1 / (1 + np.exp(-part[first, label, longer]))
            expected -= np.log(probability if right else 1 - probability)
            assert slope[first, label, longer] == pytest.approx((probability - right) * len(data) / words, abs=1e-5)
    assert loss == pytest.approx(expected / words, rel=1e-4)


def slopes(pipe, example):
    """The places in a document with a gradient that is not zero: (first word, label, number of words)."""
    scores = pipe.model.predict([example.predicted])
    (gradient,) = pipe.get_loss([example], scores)[1]
    return {(first, pipe.labels[label], longer + 1) for first, label, longer in zip(*np.nonzero(gradient), strict=True)}


def test_what_is_not_known_has_no_part_in_the_loss():
    nlp, pipe = blank(max_length=3)
    text = "to new york and boston"
    with pytest.warns(
        UserWarning, match=r"1 of the 2 gold spans of the training corpus.*max_length = 4 would include all"
    ):
        nlp.initialize(lambda: corpus(nlp, gold=[(text, [(1, 3, "city"), (1, 5, "trip")])]))
    every = slopes(pipe, *corpus(nlp, gold=[(text, [])]))
    assert len(every) == 2 * (5 + 4 + 3)
    # No gradient for a document without annotation, nor for one without words.
    assert not slopes(pipe, Example(nlp.make_doc(text), nlp.make_doc(text)))
    assert not slopes(pipe, *corpus(nlp, gold=[("\n", [])]))
    with pytest.warns(UserWarning, match=r"label 'town' .* spans with such labels are left out of the loss"):
        assert slopes(pipe, *corpus(nlp, gold=[(text, [(1, 3, "town")])])) == every - {
            (1, "city", 2),
            (1, "trip", 2),
        }
    # Spans that begin or end inside tokens, because the gold is tokenised differently.
    reference = Doc(nlp.vocab, ["to", "newyork", "and", "boston"])
    reference.spans["sc"] = [Span(reference, 3, 4, label="city")]
    predicted = Doc(nlp.vocab, ["to", "new", "york", "and", "boston"], [True, False, True, True, False])
    kept = slopes(pipe, Example(predicted, reference))
    assert (4, "city", 1) in kept and (0, "trip", 1) in kept
    assert slopes(pipe, Example(predicted, reference)) <= every


def test_a_gold_span_that_does_not_fit_takes_its_tokens_out_of_the_loss():
    nlp, pipe = blank(max_length=2)
    nlp.initialize(lambda: corpus(nlp, gold=[("a b", [(0, 1, "x")])]))
    reference = Doc(nlp.vocab, ["to", "new", "york"], [True, True, False])
    reference.spans["sc"] = [Span(reference, 1, 2, label="x")]
    predicted = Doc(nlp.vocab, ["to", "new york"], [True, False])
    assert slopes(pipe, Example(predicted, reference)) == {(0, "x", 1)}


def test_negatives_are_drawn_by_the_seed():
    nlp, pipe = blank(negatives=2.5)
    data = corpus(nlp)
    nlp.initialize(lambda: data)
    (example,) = corpus(nlp, gold=[GOLD[1]])
    gold = {(start, end - start) for start, end, _ in GOLD[1][1]}
    drawn = []
    for seed in (0, 1, 0):
        fix_random_seed(seed)
        drawn.append({(first, length) for first, _, length in slopes(pipe, example)})
        assert gold <= drawn[-1] and len(drawn[-1]) == len(gold) + 10
    assert drawn[0] == drawn[2] != drawn[1]
    fix_random_seed(0)
    # If no span has a label: 2.5 spans as for one, rounded up; or all, if there are fewer.
    (without,) = corpus(nlp, gold=[("a b c d", [])])
    assert len({(first, length) for first, _, length in slopes(pipe, without)}) == 3
    (short,) = corpus(nlp, gold=[("a", [])])
    assert {(first, length) for first, _, length in slopes(pipe, short)} == {(0, 1)}


def test_shares_of_a_batch_add_up_to_it():
    nlp, pipe = blank()
    data = corpus(nlp, gold=[*GOLD[:2], ("to \n paris", [])])
    data.append(Example(nlp.make_doc("not annotated"), nlp.make_doc("not annotated")))
    nlp.initialize(lambda: data)
    scores = pipe.model.predict([example.predicted for example in data])
    loss, whole = pipe.get_loss(data, scores)
    parts, losses = [], []
    with share_of(data):
        for example, part in zip(data, scores, strict=True):
            found, gradient = pipe.get_loss([example], [part])
            parts += gradient
            losses.append(found)
    assert sum(losses) == pytest.approx(loss)
    assert all(np.allclose(one, other, atol=1e-6) for one, other in zip(parts, whole, strict=True))
    assert any(part.any() for part in parts[:3]) and not parts[3].any()


@pytest.mark.parametrize("white", [" ", "\n", "\t\n "])
def test_white_space_is_no_word(white):
    nlp, pipe = blank(threshold=0.2)
    plain, *_ = data = corpus(nlp)
    nlp.initialize(lambda: data)
    optimizer = Adam(0.02)
    fix_random_seed(0)
    for _ in range(30):
        nlp.update(data, sgd=optimizer)
    text = TEXTS[0].replace(" ", f" {white}") + " \n"
    doc, other = nlp(text), nlp(TEXTS[0])
    assert found(other)
    spans = [
        (span.text.split(), span.label_, round(score, 4))
        for span, score in zip(other.spans["sc"], other.spans["sc"].attrs["scores"], strict=True)
    ]
    assert spans == [
        (span.text.split(), span.label_, round(score, 4))
        for span, score in zip(doc.spans["sc"], doc.spans["sc"].attrs["scores"], strict=True)
    ]
    words = [token.i for token in doc if not token.is_space]
    assert len(words) < len(doc)
    # White space at the ends of gold spans is trimmed.
    loose = [(words[start], words[end - 1] + 2, label) for start, end, label in GOLD[0][1]]
    with pytest.warns(UserWarning, match="begins or ends in white space"):
        assert slopes(pipe, *corpus(nlp, gold=[(text, loose)])) == slopes(pipe, plain)


def test_labels_and_lengths_that_it_does_not_have_are_named_in_scoring(trained):
    pipe = trained.get_pipe("span_labeler")
    text = "a b c d e f g h i j"
    data = corpus(trained, gold=[(text, [(0, 10, "who"), (0, 2, "who"), (1, 2, "new")])])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            pipe.score(data)
    said = [str(one.message) for one in caught]
    assert len(said) == 2
    assert "the label 'new'" in said[0]
    assert "1 of the 3 gold spans that are scored have more than max_length = 8 words" in said[1]
    assert "max_length = 10 would include all" in said[1]


def test_labels_can_be_given_before_it_is_trained(trained):
    nlp, pipe = blank(max_length=4)
    assert (pipe.add_label("x"), pipe.add_label("x")) == (1, 0)
    nlp.initialize()
    assert (pipe.labels, pipe.label_data, pipe.model.get_dim("nO")) == (("x",), ["x"], 1)
    with pytest.raises(SettingError, match="cannot be added"):
        trained.get_pipe("span_labeler").add_label("x")


def test_another_key(make_base):
    nlp = spacy.blank("xx")
    pipe = nlp.add_pipe("span_labeler", config={"spans_key": "mine", "model": {"nO": 3}})
    pipe.model = build_span_labeler(word_vectors(), nO=3)
    with pytest.warns(UserWarning, match=r"training\.score_weights\.spans_mine_f a weight, and set spans_sc_f to null"):
        nlp.initialize(lambda: corpus(nlp, "mine"))
    optimizer = Adam(0.02)
    for _ in range(30):
        nlp.update(corpus(nlp, "mine"), sgd=optimizer)
    data = corpus(nlp, "mine")
    assert nlp.evaluate(data)["spans_mine_f"] > 0.8
    assert all("sc" not in example.predicted.spans for example in data)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"spans_key": ""}, "spans_key = ''.*sequence_labeler"),
        ({"max_length": 0}, "max_length = 0.*from 1 on, or null"),
        ({"threshold": 1.5}, "threshold = 1.5.*from 0 to 1"),
        ({"negatives": 0}, "negatives = 0.*above 0.*or null"),
        ({"model": {"hidden_size": 0}}, "hidden_size = 0.*at least 1"),
        ({"model": {"block_size": -5}}, "block_size = -5.*at least 1"),
    ],
)
def test_bad_settings_are_refused_when_it_is_made(settings, said):
    with pytest.raises(SettingError, match=said):
        spacy.blank("xx").add_pipe("span_labeler", config=settings)


def test_bad_corpora_are_refused():
    nlp, _ = blank()
    with pytest.raises(SettingError, match=r"there are no labels.*doc\.spans\['sc'\]"):
        nlp.initialize(lambda: corpus(nlp, gold=[("a b", [])]))
    nlp, pipe = blank()
    pipe.add_label("x")
    with pytest.raises(SettingError, match="max_length of 'span_labeler' is null"):
        nlp.initialize()
    nlp, pipe = blank()
    pipe.model = build_span_labeler(word_vectors(), nO=7)
    with pytest.raises(SettingError, match="nO = 7 does not fit 'span_labeler': it has 3 labels"):
        nlp.initialize(lambda: corpus(nlp))
