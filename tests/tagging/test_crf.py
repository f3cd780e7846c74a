"""The learned CRF: compared with all sequences of tags, with finite differences, and in the component."""

from itertools import product

import numpy as np
import pytest
import spacy
from heads import CNN, corpus, fit, found, labeler
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.util import fix_random_seed
from test_tagging import LABELS, as_table, is_well_formed, normalised, spans_by_hand
from thinc.api import Adam
from tiny import TEXTS

from spacy_lsbillm.analysis.right_context import right_context
from spacy_lsbillm.errors import SettingError, StorageError
from spacy_lsbillm.tagging import (
    SCHEMES,
    Scheme,
    around_spans,
    best_tags,
    candidates,
    chunks,
    crf_cross_entropy,
    negative_log_likelihood,
    possible_tags,
    tag_marginals,
)

pytestmark = pytest.mark.any_stack

LENGTHS = np.array([4, 0, 1, 3])


def made(name, seed, labels=LABELS):
    """A scheme, scores of eight tokens, and transitions."""
    scheme = Scheme(name, labels)
    rng = np.random.default_rng(seed)
    scores = normalised(rng.normal(scale=2, size=(LENGTHS.sum(), scheme.n_tags)))
    return scheme, scores, rng.normal(scale=1.5, size=(scheme.n_tags + 1,) * 2).astype("float32")


def sequences(scheme, scores, transitions):
    """All well-formed sequences of a document, with the logarithms of their weights."""
    edge, names = scheme.n_tags, scheme.tags
    for tags in product(range(scheme.n_tags), repeat=len(scores)):
        if is_well_formed([names[tag] for tag in tags], scheme.name):
            steps = sum(float(transitions[pair]) for pair in zip((edge, *tags), (*tags, edge), strict=True))
            yield tags, steps + sum(float(row[tag]) for row, tag in zip(scores, tags, strict=True))


def by_document(scores):
    return np.split(scores, np.cumsum(LENGTHS)[:-1])


def total(weights):
    return np.logaddexp.reduce(list(weights))


@pytest.mark.parametrize("chunk", [1, 2, 128])
@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_tags_and_spans_are_those_over_all_sequences(name, chunk, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", chunk)
    scheme, scores, transitions = made(name, 0)
    best, expected = [], {}
    for rows, first in zip(by_document(scores), np.cumsum(LENGTHS) - LENGTHS, strict=True):
        every = list(sequences(scheme, rows, transitions))
        if not len(rows):
            continue
        best += max(every, key=lambda one: one[1])[0]
        whole = total(weight for _, weight in every)
        for tags, weight in every:
            for start, end, label in spans_by_hand([scheme.tags[tag] for tag in tags]):
                key = start + first, end + first, label
                expected[key] = expected.get(key, 0.0) + np.exp(weight - whole)
    tags = best_tags(scores, LENGTHS, scheme, transitions)
    assert tags.tolist() == best != best_tags(scores, LENGTHS, scheme).tolist()
    every = as_table(candidates(scores, LENGTHS, scheme, 1e-30, transitions), scheme)
    assert every == pytest.approx(expected, abs=1e-5)
    spans = as_table(around_spans(scores, LENGTHS, scheme, transitions=transitions).spans(tags, scores, scheme), scheme)
    assert spans and spans == pytest.approx({span: expected[span] for span in spans}, abs=1e-5)
    # With transitions of zero, only the constraint is left.
    plain = as_table(candidates(scores, LENGTHS, scheme, 1e-30), scheme)
    assert as_table(candidates(scores, LENGTHS, scheme, 1e-30, 0 * transitions), scheme) == pytest.approx(
        plain, abs=1e-5
    )


@pytest.mark.parametrize("transitions", [None, np.zeros((10, 10), dtype="f")], ids=["constraint", "learned"])
def test_what_is_not_a_number_ends_as_such(transitions):
    """In a document of several chunks, which are processed until they agree."""
    scheme = Scheme("biluo", LABELS)
    scores = np.full((300, scheme.n_tags), np.nan, dtype="f")
    assert np.isnan(around_spans(scores, np.array([300]), scheme, transitions=transitions).before).any()


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_probabilities_of_tags_are_those_over_all_sequences(name):
    scheme, scores, transitions = made(name, 2)
    expected = []
    for rows in by_document(scores):
        every = list(sequences(scheme, rows, transitions)) if len(rows) else []
        shares = np.zeros((len(rows), scheme.n_tags))
        for tags, weight in every:
            shares[np.arange(len(rows)), list(tags)] += np.exp(weight - total(one for _, one in every))
        expected.append(shares)
    np.testing.assert_allclose(tag_marginals(scores, LENGTHS, scheme, transitions), np.concatenate(expected), atol=1e-5)


def truth_of(scheme, missing):
    """B-city (I-city I-city) O | (empty) | O | B-date, its end, O; some of it unknown."""
    last = scheme.columns("L" if "L" in scheme.kinds else "I").start
    begin, inside = scheme.columns("B").start, scheme.columns("I").start
    truth = np.array([begin, inside, last, 0, 0, begin + 1, last + 1, 0])
    truth[list(missing)] = -1
    return truth


def check_gradients(loss, scores, transitions, found):
    """Compare gradients with finite differences of a function of scores and transitions."""
    arrays = scores.astype("float64"), transitions.astype("float64")
    for array, gradient in zip(arrays, found, strict=True):
        expected = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            was, values = array[place], []
            for step in (1e-4, -1e-4):
                array[place] = was + step
                values.append(loss(*arrays))
            array[place] = was
            expected[place] = (values[0] - values[1]) / 2e-4
        np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert np.abs(found[1]).max() > 0.1


def outside_or(scheme, label):
    """The tags of a token outside of spans whose document was not annotated for a label."""
    return np.array([tag[2:] in ("", label) for tag in scheme.tags])


@pytest.mark.parametrize(
    ("missing", "free"), [((), ()), ((3, 4), ()), ((0, 1, 2, 7), ()), ((), (3, 4, 7)), ((4,), (3, 7))]
)
@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_the_loss_is_that_over_all_sequences_and_its_gradients_are_finite_differences(name, missing, free):
    scheme, scores, transitions = made(name, 1)
    possible = possible_tags(truth_of(scheme, missing), scheme)
    possible[list(free)] = outside_or(scheme, LABELS[1])

    def by_hand(scores, transitions):
        loss = 0.0
        for rows, allowed in zip(by_document(scores), by_document(possible), strict=True):
            every = list(sequences(scheme, rows, transitions))
            right = [weight for tags, weight in every if agrees(tags, allowed)]
            loss += total(weight for _, weight in every) - total(right)
        return loss

    def agrees(tags, allowed):
        # A gold span does not continue into tokens of which more is possible.
        longer = any(
            allowed[i].sum() > 1 == allowed[i - 1].sum() and scheme.continues(np.array([tags[i]]))[0]
            for i in range(1, len(tags))
        )
        return not longer and all(row[tag] for row, tag in zip(allowed, tags, strict=True))

    def loss(scores, transitions):
        return negative_log_likelihood(scores, LENGTHS, possible, scheme, transitions)

    found, *gradients = loss(scores, transitions)
    assert found == pytest.approx(by_hand(scores, transitions), rel=1e-5)
    check_gradients(lambda *arrays: loss(*arrays)[0], scores, transitions, gradients)


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_the_loss_from_a_teacher(name):
    scheme, scores, transitions = made(name, 1)
    shares = tag_marginals(made(name, 5)[1], LENGTHS, scheme).astype("float64")
    nothing_open = np.zeros(shares.shape, dtype=bool)

    def loss(scores, transitions):
        return crf_cross_entropy(scores, LENGTHS, shares, nothing_open, scheme, transitions)

    check_gradients(lambda *arrays: loss(*arrays)[0], scores, transitions, loss(scores, transitions)[1:])
    # One possible sequence: the loss of the gold tags.
    possible = possible_tags(truth_of(scheme, ()), scheme)
    expected = negative_log_likelihood(scores, LENGTHS, possible, scheme, transitions)
    for shares, is_open in ((possible.astype("f"), nothing_open), (0.0 * possible, possible)):
        found = crf_cross_entropy(scores, LENGTHS, shares, is_open, scheme, transitions)
        assert found[0] == pytest.approx(expected[0], rel=1e-5)
        for one, other in zip(found[1:], expected[1:], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_scores_do_not_move_from_a_teacher_that_agrees(name):
    """Nor where all that it leaves open is open: the rest is divided as the CRF itself does."""
    scheme, scores, transitions = made(name, 1)
    own = tag_marginals(scores, LENGTHS, scheme, transitions)
    for shares, is_open in ((own, own < 0), (own / 2, own >= 0), (0 * own, own >= 0)):
        _, gradient, _ = crf_cross_entropy(scores, LENGTHS, shares, is_open, scheme, transitions)
        np.testing.assert_allclose(gradient, 0, atol=1e-5)
    assert crf_cross_entropy(scores[:0], np.array([0]), own[:0], own[:0] < 0, scheme, transitions)[0] == 0


def test_six_tokens_with_one_label():
    for name in SCHEMES:
        scheme = Scheme(name, ("city",))
        rng = np.random.default_rng(2)
        scores = normalised(rng.normal(size=(6, scheme.n_tags)))
        transitions = rng.normal(size=(scheme.n_tags + 1,) * 2).astype("float32")
        truth = best_tags(scores, np.array([6]), scheme, transitions)
        loss, *_ = negative_log_likelihood(scores, np.array([6]), possible_tags(truth, scheme), scheme, transitions)
        every = dict(sequences(scheme, scores, transitions))
        assert loss == pytest.approx(total(every.values()) - every[tuple(truth.tolist())], abs=1e-5)


def test_nothing_and_what_is_nearly_impossible():
    scheme, scores, transitions = made("biluo", 3)
    none = np.zeros((0, scheme.n_tags), "f")
    assert not len(candidates(none, np.array([0]), scheme, 0.1, transitions))
    assert not len(best_tags(none, np.array([0]), scheme, transitions))
    assert (
        negative_log_likelihood(none, np.array([0]), possible_tags(np.zeros(0, int), scheme), scheme, transitions)[0]
        == 0
    )
    truth = truth_of(scheme, ())
    scores[0, truth[0]] = -500.0
    loss, gradient, _ = negative_log_likelihood(scores, LENGTHS, possible_tags(truth, scheme), scheme, transitions)
    assert 500 < loss < 560 and gradient[0, truth[0]] == pytest.approx(-1.0)


# The component


@pytest.fixture(scope="module")
def trained():
    fix_random_seed(0)
    nlp = spacy.blank("en")
    labeler(nlp, tok2vec=CNN, transitions="learned")
    fit(nlp, corpus(nlp))
    return nlp


def test_a_labeler_learns_its_transitions_and_keeps_them(trained, tmp_path):
    pipe = trained.get_pipe("sequence_labeler")
    docs = list(trained.pipe(TEXTS))
    assert [found(doc) for doc in docs] == [found(example.reference) for example in corpus(trained)]
    assert all(0.5 < score <= 1 for doc in docs for score in doc._.ent_scores)
    numbers = {tag: i for i, tag in enumerate(pipe.scheme.tags)}
    # Forbidden transitions are never changed; documents end outside of spans, or with the end of one.
    assert pipe.transitions[numbers["O"], numbers["L-city"]] == 0 != pipe.transitions[numbers["O"], numbers["B-city"]]
    trained.to_disk(tmp_path / "it")
    for again in (spacy.load(tmp_path / "it"), spacy.load(tmp_path / "it").from_bytes(trained.to_bytes())):
        np.testing.assert_array_equal(again.get_pipe("sequence_labeler").transitions, pipe.transitions)
        for one, other in zip(again.pipe(TEXTS), docs, strict=True):
            assert found(one) == found(other) and one._.ent_scores == pytest.approx(other._.ent_scores, abs=1e-6)


def test_what_the_right_context_changes_is_measured_in_shares_of_all_sequences(trained):
    """A CNN sees one token to the right per layer."""
    doc = trained.make_doc(TEXTS[0])
    gold = [Span(doc, ent.start, ent.end, label=ent.label_) for ent in trained(TEXTS[0]).ents]
    found = right_context(trained, [(doc, gold)])
    assert 0 < found["inside gold spans"].distance < 1


def test_transitions_decide_what_is_found(trained):
    pipe = trained.get_pipe("sequence_labeler")
    doc = trained(TEXTS[0])
    assert [ent.label_ for ent in doc.ents] == ["city"]
    was = pipe.transitions
    forbidding = was.copy()
    for kind in "BU":
        forbidding[:, pipe.scheme.columns(kind)] = -30.0
    pipe.model.set_param("transitions", forbidding)
    assert not trained(TEXTS[0]).ents
    pipe.model.set_param("transitions", was)


def test_it_gets_another_label_and_keeps_what_it_has_learned(tmp_path):
    fix_random_seed(0)
    nlp = spacy.blank("en")
    pipe = labeler(nlp, tok2vec=CNN, transitions="learned")
    data = corpus(nlp)
    nlp.initialize(lambda: data)
    optimizer = Adam(0.005)
    for _ in range(80):
        nlp.update(data, sgd=optimizer)
    before, tags, was = [found(doc) for doc in nlp.pipe(TEXTS)], pipe.scheme.tags, pipe.transitions
    pipe.add_label("venue")
    numbers = [pipe.scheme.tags.index(tag) for tag in tags] + [pipe.scheme.n_tags]
    np.testing.assert_array_equal(pipe.transitions[np.ix_(numbers, numbers)], was)
    assert pipe.transitions.shape == (pipe.scheme.n_tags + 1,) * 2
    assert np.count_nonzero(pipe.transitions) == np.count_nonzero(was)
    assert [found(doc) for doc in nlp.pipe(TEXTS)] == before
    # It is trained further with its optimizer, and its averages, and is saved with its new size.
    data[0].reference.set_ents([Span(data[0].reference, 1, 3, label="venue")])
    for _ in range(40):
        nlp.update(data, sgd=optimizer)
    with nlp.use_params(optimizer.averages):
        nlp.to_disk(tmp_path)
    assert {ent.label_ for ent in spacy.load(tmp_path)(TEXTS[0]).ents} == {"venue"}


@pytest.mark.parametrize("annotated", [None, ("venue",)], ids=["nothing", "another label"])
def test_it_learns_from_a_teacher_where_there_is_no_annotation(trained, annotated):
    fix_random_seed(1)
    nlp = spacy.blank("en")
    pipe = labeler(nlp, tok2vec=CNN, transitions="learned")
    gold = corpus(nlp)
    nlp.initialize(lambda: gold)
    teacher = trained.get_pipe("sequence_labeler")
    if annotated is not None:
        pipe.add_label("venue")
    pipe.learn_from(teacher, lambda docs: [Doc(trained.vocab, words=[token.text for token in doc]) for doc in docs])
    bare = [Example(nlp.make_doc(text), nlp.make_doc(text)) for text in TEXTS]
    for one in bare if annotated is not None else ():
        one.reference.set_ents([])
        one.reference.user_data["annotated"] = annotated
    optimizer, losses = Adam(0.01), []
    for _ in range(40):
        losses.append(nlp.update(bare, sgd=optimizer, losses={})["sequence_labeler"])
    assert losses[-1] < 0.3 * losses[0]
    assert [found(doc) for doc in nlp.pipe(TEXTS)] == [found(doc) for doc in trained.pipe(TEXTS)]


def test_labels_that_were_not_annotated_are_left_open():
    nlp = spacy.blank("en")
    pipe = labeler(nlp, tok2vec=CNN, transitions="learned")
    data = corpus(nlp)
    nlp.initialize(lambda: data)
    [example, *_] = data
    scores = [np.zeros((len(example.predicted), pipe.scheme.n_tags), dtype="f")]
    complete, _ = pipe.get_loss([example], scores)
    example.reference.user_data["annotated"] = sorted({ent.label_ for ent in example.reference.ents})
    partial, gradient = pipe.get_loss([example], scores)
    assert 0 < partial < complete
    # "Outside" and the labels that were not annotated are pushed up together.
    outside = next(token.i for token in example.reference if not token.ent_type_)
    assert gradient[0][outside, 0] < 0
    other = next(label for label in pipe.labels if label not in example.reference.user_data["annotated"])
    assert all(gradient[0][outside, i] <= 1e-6 for i, tag in enumerate(pipe.scheme.tags) if tag == f"U-{other}")


def test_the_gradient_of_a_batch_is_that_of_its_loss():
    """White space, and documents without annotation, do not contribute."""
    nlp = spacy.blank("en")
    pipe = labeler(nlp, tok2vec=CNN, transitions="learned")
    data = corpus(nlp)
    nlp.initialize(lambda: data)
    rng = np.random.default_rng(0)
    pipe.model.set_param("transitions", rng.normal(size=pipe.transitions.shape).astype("f"))
    text = TEXTS[0].split()
    spaced = Example.from_dict(nlp.make_doc(text[0] + " \n " + " ".join(text[1:])), {"entities": []})
    bare = Example(nlp.make_doc(TEXTS[1]), nlp.make_doc(TEXTS[1]))
    batch = [*data, spaced, bare]
    scores = [rng.normal(size=(len(one.predicted), pipe.scheme.n_tags)).astype("f") for one in batch]
    loss, gradient = pipe.get_loss(batch, scores)
    assert len(gradient) == len(batch) + 1 and not gradient[-2].any()
    space = next(token.i for token in spaced.predicted if token.is_space)
    assert not gradient[-3][space].any() and gradient[-3][0].any()
    tokens = sum(not token.is_space for one in batch[:-1] for token in one.predicted)
    moved = pipe.transitions
    way = np.sign(gradient[-1])
    pipe.model.set_param("transitions", moved + 1e-3 * way)
    more, _ = pipe.get_loss(batch, scores)
    assert (more - loss) * len(batch) == pytest.approx(1e-3 * np.abs(gradient[-1]).sum(), rel=0.02)
    # The mean over tokens, as without transitions.
    pipe.model.set_param("transitions", 0 * moved)
    flat = [0 * part for part in scores]
    assert 0.5 < pipe.get_loss(batch, flat)[0] < np.log(pipe.scheme.n_tags) and tokens


def test_without_it_nothing_is_changed_and_old_settings_are_read(tmp_path):
    fix_random_seed(0)
    nlp = spacy.blank("en")
    pipe = labeler(nlp, tok2vec=CNN)
    data = corpus(nlp)
    nlp.initialize(lambda: data)
    nlp.update(data, sgd=Adam(0.01))
    assert pipe.transitions is None and "transitions" not in pipe.model.param_names
    # Pipelines of an earlier version do not have the setting.
    del pipe.cfg["transitions"]
    nlp.config["components"]["sequence_labeler"].pop("transitions")
    nlp.to_disk(tmp_path)
    again = spacy.load(tmp_path)
    assert [found(doc) for doc in again.pipe(TEXTS)] == [found(doc) for doc in nlp.pipe(TEXTS)]
    with pytest.raises(StorageError, match=r"trained without learned transitions.*set it to null, or train it again"):
        spacy.load(tmp_path, config={"components": {"sequence_labeler": {"transitions": "learned"}}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transitions": "crf"}, r"transitions = 'crf' of 'sequence_labeler' is not allowed\. Use \"learned\""),
        (
            {"transitions": "learned", "focal_gamma": 2.0},
            r"is not allowed with focal_gamma = 2\.0: .* Set transitions to",
        ),
        ({"transitions": "learned", "class_weights": "balanced"}, "is not allowed with class_weights = 'balanced'"),
        ({"transitions": "learned", "label_smoothing": 0.1}, r"is not allowed with label_smoothing = 0\.1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(SettingError, match=message):
        labeler(spacy.blank("en"), tok2vec=CNN, **settings)
