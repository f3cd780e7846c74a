"""Tagging schemes and the decoder, compared with every possible sequence and with the definitions of the schemes."""

import tracemalloc
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_lsbillm.errors import SettingError
from spacy_lsbillm.tagging import (
    SCHEMES,
    Scheme,
    around_spans,
    best_tags,
    calibration_error,
    candidates,
    chunks,
    tag_marginals,
)

pytestmark = pytest.mark.any_stack

LABELS = ("city", "date")


def may_follow(before: str, after: str, scheme: str) -> bool:
    """The definition. "" stands for the beginning or the end of a document."""
    if after[:1] in ("I", "L"):
        return before[:1] in ("B", "I") and before[2:] == after[2:]
    return scheme == "iob2" or before[:1] not in ("B", "I")


def is_well_formed(tags: list[str], scheme: str) -> bool:
    return all(may_follow(a, b, scheme) for a, b in zip(["", *tags], [*tags, ""], strict=True))


def spans_by_hand(tags: list[str]) -> list[tuple[int, int, str]]:
    """The spans, found one token after the other."""
    found = []
    for i, tag in enumerate(tags):
        if tag[0] in "BU":
            found.append([i, i + 1, tag[2:]])
        elif tag[0] in "IL":
            found[-1][1] = i + 1
    return [tuple(one) for one in found]


@st.composite
def documents(draw, longest=4):
    """Scores of some documents, drawn from a few values so that there are ties, or from many."""
    lengths = draw(st.lists(st.integers(0, longest), min_size=1, max_size=4))
    few = draw(st.booleans())
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    scheme = Scheme(draw(st.sampled_from(sorted(SCHEMES))), LABELS[: draw(st.integers(1, 2))])
    shape = (sum(lengths), scheme.n_tags)
    scores = rng.integers(-3, 0, shape) if few else rng.normal(size=shape)
    return scheme, np.array(lengths), scores.astype("float32")


@settings(max_examples=150)
@given(documents())
def test_no_well_formed_sequence_is_better(case):
    scheme, lengths, scores = case
    found = best_tags(scores, lengths, scheme)
    names, at = scheme.tags, 0
    for length in lengths:
        rows = scores[at : at + length]
        possible = [
            sum(rows[i, tag] for i, tag in enumerate(sequence))
            for sequence in product(range(scheme.n_tags), repeat=length)
            if is_well_formed([names[tag] for tag in sequence], scheme.name)
        ]
        ours = found[at : at + length]
        assert is_well_formed([names[tag] for tag in ours], scheme.name)
        assert rows[np.arange(length), ours].sum() == pytest.approx(max(possible, default=0), abs=1e-4)
        at += length


@given(documents(longest=30))
def test_spans_are_those_of_the_tags(case):
    scheme, lengths, scores = case
    tags = best_tags(scores, lengths, scheme)
    chosen = scores[np.arange(len(tags)), tags]
    spans = scheme.spans(tags, chosen)
    found = list(zip(spans.start, spans.end, (scheme.labels[i] for i in spans.label), strict=True))
    assert found == spans_by_hand([scheme.tags[tag] for tag in tags])
    for start, end, score in zip(spans.start, spans.end, spans.score, strict=True):
        assert score == pytest.approx(np.exp(chosen[start:end].sum()), rel=1e-3)
    ends = np.cumsum(lengths)
    assert all(np.searchsorted(ends, s, "right") == np.searchsorted(ends, e - 1, "right") for s, e, _ in found)


@given(st.lists(st.sampled_from(Scheme("biluo", LABELS).tags), max_size=6), st.sampled_from(sorted(SCHEMES)))
def test_well_formed_means_what_the_definition_says(names, scheme_name):
    scheme = Scheme(scheme_name, LABELS)
    names = [name for name in names if name in scheme.tags]
    tags = np.array([scheme.tags.index(name) for name in names], dtype=int)
    first = np.arange(len(tags)) == 0
    assert scheme.well_formed(tags, first).all() == is_well_formed(names, scheme_name)


def test_tags_of_other_schemes_are_translated():
    biluo = ["O", "U-city", "B-date", "I-date", "L-date", None, "U-other"]
    numbers = {"city": 0, "date": 1}
    for name, expected in (
        ("iob2", ["O", "B-city", "B-date", "I-date", "I-date"]),
        ("biluo", ["O", "U-city", "B-date", "I-date", "L-date"]),
    ):
        scheme = Scheme(name, LABELS)
        found = scheme.numbers(biluo, numbers)
        assert [scheme.tags[i] for i in found[:5]] == expected
        assert found[5:] == [-1, -1]


def test_nothing_at_all():
    scheme = Scheme("biluo", LABELS)
    tags = best_tags(np.zeros((0, scheme.n_tags), "f"), np.array([0, 0]), scheme)
    assert len(tags) == len(scheme.spans(tags, np.zeros(0))) == 0


def test_bad_settings():
    with pytest.raises(SettingError, match=r"scheme = 'bioes' is not allowed\. Use one of: 'iob2', 'biluo'"):
        Scheme("bioes", LABELS)


def normalised(scores):
    scores = scores - scores.max(axis=1, keepdims=True)
    return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype("float32")


def probabilities_by_hand(scores, lengths, scheme):
    """The probability of every span, over all sequences of each document."""
    found, at = Counter(), 0
    for length in lengths:
        weights = {}
        for sequence in product(range(scheme.n_tags), repeat=length):
            names = [scheme.tags[tag] for tag in sequence]
            if is_well_formed(names, scheme.name):
                weights[tuple(names)] = np.exp(sum(float(scores[at + i, tag]) for i, tag in enumerate(sequence)))
        for names, weight in weights.items():
            for start, end, label in spans_by_hand(names):
                found[start + at, end + at, label] += weight / sum(weights.values())
        at += length
    return found


def as_table(spans, scheme):
    keys = zip(spans.start.tolist(), spans.end.tolist(), (scheme.labels[i] for i in spans.label), strict=True)
    return dict(zip(keys, spans.score.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(documents(), st.sampled_from([1, 2, 3, 256]))
def test_probabilities_are_those_over_all_sequences(case, chunk):
    """However documents are split into chunks."""
    scheme, lengths, scores = case
    scores = normalised(scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK", chunk)
        every = as_table(candidates(scores, lengths, scheme, 1e-30), scheme)
        around = around_spans(scores, lengths, scheme)
    expected = probabilities_by_hand(scores, lengths, scheme)
    assert every == pytest.approx(expected, abs=1e-5)
    likely = as_table(candidates(scores, lengths, scheme, 0.2), scheme)
    assert set(likely) == {span for span, score in every.items() if score >= 0.2}
    tags = best_tags(scores, lengths, scheme)
    best = scheme.spans(tags, scores[np.arange(len(tags)), tags], around.before, around.after)
    assert as_table(best, scheme) == pytest.approx({span: expected[span] for span in as_table(best, scheme)}, abs=1e-5)


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_six_tokens_with_one_label(name):
    scheme = Scheme(name, ("city",))
    for seed in range(4):
        scores = normalised(np.random.default_rng(seed).normal(scale=3, size=(6, scheme.n_tags)))
        found = as_table(candidates(scores, np.array([6]), scheme, 1e-30), scheme)
        assert found == pytest.approx(probabilities_by_hand(scores, [6], scheme), abs=1e-5)


@pytest.mark.parametrize("name", sorted(SCHEMES))
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_long_document_is_as_exact_as_in_one_chunk(name, scale, monkeypatch):
    """Also if scores are so certain, and so ill-formed, that a span stays open over many chunks."""
    scheme = Scheme(name, LABELS)
    scores = np.random.default_rng(0).normal(size=(700, scheme.n_tags))
    scores[100:600, scheme.columns("I")] += 12
    scores = normalised(scores * scale)
    found = []
    for chunk in (1000, 16):
        monkeypatch.setattr(chunks, "CHUNK", chunk)
        found.append(as_table(candidates(scores, np.array([700]), scheme, 1e-3), scheme))
        assert np.isfinite(list(found[-1].values())).all() and found[-1]
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_memory_beside_the_scores_is_a_few_numbers_per_token():
    scheme = Scheme("biluo", LABELS)
    scores = normalised(np.random.default_rng(0).normal(size=(200_000, scheme.n_tags)))
    tracemalloc.start()
    around_spans(scores, np.array([len(scores)]), scheme)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 48 * len(scores)


def test_candidates_of_nothing():
    scheme = Scheme("biluo", LABELS)
    assert not len(candidates(np.zeros((0, scheme.n_tags), "f"), np.array([0, 0]), scheme, 0.1))


def test_the_error_of_scores_that_are_right_and_of_others():
    rng = np.random.default_rng(0)
    scores = rng.random(60_000)
    right = rng.random(60_000) < scores
    assert calibration_error(scores, right) < 0.01
    assert calibration_error(scores**2, right) == pytest.approx(1 / 2 - 1 / 3, abs=0.01)
    assert calibration_error(np.zeros(0), np.zeros(0, bool)) is None
    assert calibration_error(np.array([0.25]), np.array([True])) == pytest.approx(0.75)


@settings(max_examples=60, deadline=None)
@given(documents(), st.sampled_from([1, 2, 256]))
def test_probabilities_of_tags_are_those_over_all_sequences(case, chunk):
    scheme, lengths, scores = case
    scores = normalised(scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK", chunk)
        found = tag_marginals(scores, lengths, scheme)
    expected, at = np.zeros(scores.shape), 0
    for length in lengths:
        weights = {
            sequence: np.exp(sum(float(scores[at + i, tag]) for i, tag in enumerate(sequence)))
            for sequence in product(range(scheme.n_tags), repeat=length)
            if is_well_formed([scheme.tags[tag] for tag in sequence], scheme.name)
        }
        for sequence, weight in weights.items():
            expected[np.arange(at, at + length), list(sequence)] += weight / sum(weights.values())
        at += length
    np.testing.assert_allclose(found, expected, atol=1e-5)
