"""Tagging schemes and the decoder, against every possible sequence and against what the schemes' definitions say."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_lsbillm.errors import SettingError
from spacy_lsbillm.tagging import SCHEMES, Scheme, best_tags

LABELS = ("city", "date")


def may_follow(before: str, after: str, scheme: str) -> bool:
    """The definition. "" stands for the beginning or the end of a document."""
    if after[:1] in ("I", "L"):
        return before[:1] in ("B", "I") and before[2:] == after[2:]
    return scheme == "iob2" or before[:1] not in ("B", "I")


def is_well_formed(tags: list[str], scheme: str) -> bool:
    return all(may_follow(a, b, scheme) for a, b in zip(["", *tags], [*tags, ""], strict=True))


def spans_by_hand(tags: list[str]) -> list[tuple[int, int, str]]:
    """One token after the other."""
    found = []
    for i, tag in enumerate(tags):
        if tag[0] in "BU":
            found.append([i, i + 1, tag[2:]])
        elif tag[0] in "IL":
            found[-1][1] = i + 1
    return [tuple(one) for one in found]


@st.composite
def documents(draw, longest=4):
    """Scores of some documents, drawn from few values so that there are ties, and from many."""
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
