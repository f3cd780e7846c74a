"""Losses for rare classes: class weights, focal loss, label smoothing, in both heads."""

import numpy as np
import pytest
import spacy
from heads import CNN, corpus, fit, found, labeler
from hypothesis import given
from hypothesis import strategies as st
from spacy.training import Example
from tiny import TEXTS

from spacy_lsbillm.errors import SettingError
from spacy_lsbillm.layers import LossSettings, soft_loss, teach_textcat
from spacy_lsbillm.layers.class_loss import balanced, sigmoid_loss, softmax_loss

pytestmark = pytest.mark.any_stack

losses = st.builds(
    LossSettings,
    focal_gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]),
    label_smoothing=st.sampled_from([0.0, 0.1, 0.5]),
)


def softmax(scores):
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def slope(function, scores, step=1e-6):
    """Finite differences of the sum of a function's values."""
    found = np.zeros_like(scores)
    for place in np.ndindex(scores.shape):
        moved = [scores.copy(), scores.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        found[place] = (function(moved[0]).sum() - function(moved[1]).sum()) / (2 * step)
    return found


@given(losses, st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_gradients_are_finite_differences(loss, seed, classes):
    rng = np.random.default_rng(seed)
    scores, truth, weights = rng.normal(0, 2, (4, classes)), rng.integers(0, classes, 4), rng.uniform(0.1, 5, 4)
    _, gradient = softmax_loss(np, softmax(scores), truth, weights, loss)
    expected = slope(lambda moved: softmax_loss(np, softmax(moved), truth, weights, loss)[0], scores)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
    there, weights = rng.random(scores.shape) < 0.5, rng.uniform(0.1, 5, scores.shape)

    def alone(moved):
        return sigmoid_loss(np, 1 / (1 + np.exp(-moved)), there, weights, loss)

    np.testing.assert_allclose(alone(scores)[1], slope(lambda moved: alone(moved)[0], scores), rtol=1e-4, atol=1e-6)


def test_by_default_it_is_cross_entropy():
    p = softmax(np.random.default_rng(0).normal(size=(5, 3)))
    truth = np.array([0, 1, 2, 0, 1])
    loss, gradient = softmax_loss(np, p, truth, np.ones(5), LossSettings())
    np.testing.assert_allclose(loss, -np.log(p[np.arange(5), truth]))
    np.testing.assert_allclose(gradient, p - np.eye(3)[truth])


def test_balanced_weights_have_a_mean_of_one():
    counts = [99, 9, 0]
    weights = balanced(counts)
    assert sum(w * (n + 1) for w, n in zip(weights, counts, strict=True)) == pytest.approx(sum(counts) + 3)
    assert weights[2] / weights[0] == pytest.approx(100)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_weights": "even"}, "class_weights = 'even' is not allowed"),
        ({"class_weights": {"city": 0.0}}, 'class_weights = .* is not allowed. Use "balanced"'),
        ({"class_weights": {"city": "2"}}, "class_weights = .* is not allowed"),
        ({"focal_gamma": -1.0}, r"focal_gamma = -1\.0 is not allowed"),
        ({"focal_gamma": float("nan")}, "focal_gamma = nan is not allowed"),
        ({"label_smoothing": 1.0}, r"label_smoothing = 1\.0 is not allowed"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        LossSettings(**settings)


# The sequence_labeler


def made(**settings):
    nlp = spacy.blank("en")
    pipe = labeler(nlp, tok2vec=CNN, **settings)
    data = corpus(nlp)
    nlp.initialize(lambda: data)
    return nlp, pipe, data


def gradient_of(pipe, data):
    scores = [np.zeros((len(example.reference), pipe.scheme.n_tags), dtype="f") for example in data]
    loss, gradient = pipe.get_loss(data, scores)
    return loss, np.concatenate(gradient)


def labels_of(data):
    """The label of each token's entity; "O" outside."""
    return np.array([token.ent_type_ or "O" for example in data for token in example.reference])


def test_a_table_weighs_tokens_by_their_label():
    _, plain, data = made()
    _, weighted, _ = made(class_weights={"city": 3.0, "O": 0.5})
    before, after = gradient_of(plain, data)[1], gradient_of(weighted, data)[1]
    factor = np.array([{"city": 3.0, "O": 0.5}.get(label, 1.0) for label in labels_of(data)])
    np.testing.assert_allclose(after, before * factor[:, None], rtol=1e-5)


def test_balanced_weighs_labels_inversely_to_their_spans_and_leaves_the_outside_alone():
    _, plain, data = made()
    _, weighted, _ = made(class_weights="balanced")
    ratio = (np.abs(gradient_of(weighted, data)[1]) / np.abs(gradient_of(plain, data)[1])).mean(axis=1)
    labels = labels_of(data)
    of = {label: ratio[labels == label] for label in set(labels)}
    spans = {label: sum(ent.label_ == label for example in data for ent in example.reference.ents) for label in of}
    rare, often = (choose(of.keys() - {"O"}, key=spans.get) for choose in (min, max))
    assert of[rare].mean() / of[often].mean() == pytest.approx((spans[often] + 1) / (spans[rare] + 1), rel=1e-4)
    assert of["O"].mean() == pytest.approx(1.0, rel=0.35)


def test_a_weight_of_an_unknown_label_is_refused_before_training():
    with pytest.raises(SettingError, match="class_weights of 'sequence_labeler' names 'town', which is not among"):
        made(class_weights={"town": 2.0})


def test_a_labeler_learns_with_all_of_it_and_goes_on_after_loading(tmp_path):
    nlp = spacy.blank("en")
    labeler(nlp, tok2vec=CNN, class_weights="balanced", focal_gamma=1.0, label_smoothing=0.05)
    data = corpus(nlp)
    fit(nlp, data)
    expected = [found(doc) for doc in nlp.pipe(TEXTS)]
    assert expected == [found(example.reference) for example in data]
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    pipe, again = nlp.get_pipe("sequence_labeler"), loaded.get_pipe("sequence_labeler")
    assert again.loss == pipe.loss and not again.loss.plain
    np.testing.assert_array_equal(gradient_of(again, data)[1], gradient_of(pipe, data)[1])


# PooledTextCat


def classifier(exclusive, **settings):
    nlp = spacy.blank("en")
    factory = "textcat" if exclusive else "textcat_multilabel"
    architecture = "spacy-lsbillm.PooledTextCat.v1"
    model = {"@architectures": architecture, "exclusive_classes": exclusive, "tok2vec": CNN, **settings}
    pipe = nlp.add_pipe(factory, config={"model": model})
    cats = [{"a": 1.0, "b": 0.0}] * 3 + [{"a": 0.0, "b": 1.0}]
    data = [Example.from_dict(nlp.make_doc(text), {"cats": found}) for text, found in zip(TEXTS, cats, strict=True)]
    nlp.initialize(lambda: data)
    return nlp, pipe, data


def gradients_of(pipe, data):
    """The gradient of the output layer's bias, summed over all documents."""
    scores, backprop = pipe.model.begin_update([example.predicted for example in data])
    backprop(pipe.get_loss(data, scores)[1])
    output = pipe.model.get_ref("output_layer")
    gradient = output.get_grad("b").copy()
    output.set_grad("b", output.ops.alloc1f(len(gradient)))
    return gradient


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_classifier_turns_cross_entropy_into_the_loss_that_is_set(exclusive):
    _, plain, data = classifier(exclusive)
    # The output layer starts at zero, so every probability is 1/2.
    np.testing.assert_allclose(gradients_of(plain, data), [-1.0, 1.0], atol=1e-6)
    _, smooth, _ = classifier(exclusive, label_smoothing=0.5)
    np.testing.assert_allclose(gradients_of(smooth, data), [-0.5, 0.5], atol=1e-6)
    _, even, _ = classifier(exclusive, class_weights="balanced")
    # Three documents of one class and one of the other, with one added to each count: weights of 6/8 and 6/4.
    np.testing.assert_allclose(gradients_of(even, data), [-0.375, 0.375], atol=1e-6)


def test_a_class_without_annotation_has_no_gradient():
    nlp, pipe, _ = classifier(False, focal_gamma=2.0, class_weights="balanced")
    given = Example.from_dict(nlp.make_doc(TEXTS[0]), {"cats": {"a": 1.0}})
    gradient = gradients_of(pipe, [given])
    assert gradient[0] != 0 and gradient[1] == 0


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_class_that_is_certain_counts_as_annotated(exclusive):
    """Its probability is 1 in float32, so that it equals the truth, as the gradient of one without annotation does."""
    _, pipe, data = classifier(exclusive, class_weights="balanced")
    pipe.model.get_ref("output_layer").set_param("b", np.array([200.0, -200.0], dtype="f"))
    gradients_of(pipe, data)
    assert pipe.model.attrs["counts"] == ([3, 1] if exclusive else [3, 1, 1, 3])
    # Nor does a teacher say otherwise.
    _, pipe, data = classifier(exclusive)
    pipe.model.get_ref("output_layer").set_param("b", np.array([200.0, -200.0], dtype="f"))
    teach_textcat(pipe.model, lambda docs: np.array([[0.0, 1.0]] * len(docs), dtype="f"), [0, 1])
    np.testing.assert_allclose(gradients_of(pipe, data[:3]), [0.0, 0.0], atol=1e-5)


def test_a_table_is_refused_where_classes_have_no_names():
    with pytest.raises(SettingError, match="PooledTextCat, which does not know the names"):
        classifier(True, class_weights={"a": 2.0})


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.booleans())
def test_gradients_of_the_loss_of_a_truth_that_is_partly_known(seed, classes, none_open):
    rng = np.random.default_rng(seed)
    scores, shares = rng.normal(0, 2, (4, classes)), rng.dirichlet(np.ones(classes + 1), 4)[:, 1:]
    is_open = (rng.random((4, classes)) < 0.5) & (not none_open)
    loss, gradient = soft_loss(np, softmax(scores), shares, is_open)
    expected = slope(lambda moved: soft_loss(np, softmax(moved), shares, is_open)[0], scores)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
    p = softmax(scores)[0]
    rest = (1 - shares[0].sum()) * is_open[0].any()
    assert loss[0] == pytest.approx(-(shares[0] @ np.log(p)) - (rest and rest * np.log(p[is_open[0]].sum())))


def test_a_truth_that_is_wholly_known_or_not_at_all():
    p = softmax(np.random.default_rng(0).normal(size=(3, 4)))
    one, none = np.eye(4)[:3], np.zeros((3, 4))
    loss, gradient = soft_loss(np, p, one, none > 0)
    np.testing.assert_allclose(loss, -np.log(p[np.arange(3), np.arange(3)]))
    np.testing.assert_allclose(gradient, p - one)
    for all_open in (True, False):
        loss, gradient = soft_loss(np, p, none, none == (0 if all_open else 1))
        np.testing.assert_allclose(loss, 0, atol=1e-12)
        np.testing.assert_allclose(gradient, 0, atol=1e-12)
