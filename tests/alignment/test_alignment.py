"""From tokens to pieces, windows and micro-batches, and back, for any kind of text."""

from itertools import pairwise, product

import numpy as np
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc
from spacy_transformers.span_getters import get_doc_spans, get_strided_spans
from tiny import make_tokenizer

from spacy_lsbillm.alignment import SpecialPieces, align, cut_pieces, cut_windows, make_batch
from spacy_lsbillm.alignment.batches import cut_passes, pack
from spacy_lsbillm.alignment.pieces import MANY_PIECES
from spacy_lsbillm.errors import SettingError

NLP = spacy.blank("en")
TOKENIZER = make_tokenizer()
SPECIAL = SpecialPieces.of(TOKENIZER)
# All characters except lone surrogates, which cannot be encoded, and NUL, at which spaCy ends a string.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
spaced = st.lists(
    st.sampled_from(["book", " ", "  ", "\n", "évening", "😀", "don't", "ﬁ", "e\u0301", "日本"]), max_size=30
)
documents = st.lists(st.one_of(texts, spaced.map("".join), spaced.map(" ".join)), max_size=5)


def pieces_per_token(docs, pieces):
    of_piece, counts = align(docs, pieces)
    return np.split(of_piece, np.cumsum(counts)[:-1]) if len(counts) else []


@settings(max_examples=300)
@given(documents)
def test_each_token_gets_exactly_the_pieces_that_share_a_character_with_it(strings):
    docs = [NLP.make_doc(string) for string in strings]
    pieces = cut_pieces(TOKENIZER, docs, get_doc_spans)
    tokens = [(doc, token) for doc in docs for token in doc]
    bases = dict(zip(map(id, docs), np.cumsum([0, *(len(doc.text) + 1 for doc in docs)]), strict=False))
    got = pieces_per_token(docs, pieces) if docs else []
    assert len(got) == len(tokens)
    for (doc, token), found in zip(tokens, got, strict=True):
        start = bases[id(doc)] + token.idx
        expected = np.flatnonzero((pieces.starts < start + len(token)) & (pieces.ends > start))
        assert found.tolist() == expected.tolist()
        assert len(found), "a byte-level tokenizer has a piece for every character"


@settings(max_examples=200)
@given(documents, st.integers(3, 12), st.integers(0, 6), st.sampled_from([8, 64]), st.sampled_from([0, 10, 24]))
def test_a_batch_brings_every_token_its_own_pieces(strings, window, overlap, pass_cost, row):
    """Piece ids stand in for states: after windows, sorting and padding, each token must have its own."""
    docs = [NLP.make_doc(string) for string in strings]
    if not docs:
        return
    overlap = min(overlap, window - len(SPECIAL) - 1)
    batch = make_batch(
        TOKENIZER,
        SPECIAL,
        docs,
        get_doc_spans,
        window=window,
        overlap=overlap,
        max_items=40,
        pass_cost=pass_cost,
        row=row,
    )
    rows = np.concatenate([part.ids.ravel() for part in batch.micro_batches] or [np.zeros(0, dtype=int)])
    real = np.concatenate([part.mask.ravel() for part in batch.micro_batches] or [np.zeros(0, dtype=int)])
    pieces = cut_pieces(TOKENIZER, docs, get_doc_spans)
    of_piece, counts = align(docs, pieces)
    assert rows[batch.slots].tolist() == pieces.ids[of_piece].tolist()
    assert real[batch.slots].all()
    assert batch.pieces_per_token.tolist() == counts.tolist()
    assert batch.tokens_per_doc == [len(doc) for doc in docs]
    for part in batch.micro_batches:
        assert part.ids.size <= max(40, part.ids.shape[1])
        assert part.ids.shape[1] <= max(window, row)
        assert (part.ids[:, 0] == SPECIAL.prefix[0]).all()
        if part.positions is not None:
            # Each window begins with the special piece; otherwise only padding is at position 0.
            first = (part.positions == 0) & (part.mask == 1)
            assert (part.ids[first] == SPECIAL.prefix[0]).all()
            assert (part.positions[part.mask == 0] == 0).all()
            assert (part.positions < window).all()
    sums = np.zeros(len(counts), dtype=int)
    for part, share in zip(batch.micro_batches, batch.sums_of_tokens(), strict=True):
        np.add.at(sums, np.repeat(share.targets, share.sizes), part.ids.ravel()[share.slots])
    groups = np.split(pieces.ids[of_piece], np.cumsum(counts)[:-1]) if len(counts) else []
    assert sums.tolist() == [int(group.sum()) for group in groups]


@given(st.lists(st.integers(1, 30), max_size=30), st.integers(0, 40))
def test_packed_windows_do_not_overlap_and_fill_their_rows(lengths, row):
    row_of, offsets = pack(np.array(lengths, dtype=np.int64), row)
    used = {}
    for number, offset, length in sorted(zip(row_of.tolist(), offsets.tolist(), lengths, strict=True)):
        assert offset == used.get(number, 0)
        used[number] = offset + length
    for number, total in used.items():
        assert total <= max(row, max(lengths[i] for i in np.flatnonzero(row_of == number)))
    if row >= 2 * max(lengths, default=0):
        # No more rows than if all but one of them were more than half full.
        assert sum(lengths) > (len(used) - 1) * (row // 2) or not used


@given(st.lists(st.integers(1, 20), min_size=2, max_size=40))
def test_few_rows_are_filled_evenly(lengths):
    row_of, _ = pack(np.array(lengths, dtype=np.int64), 64)
    totals = np.bincount(row_of, weights=lengths)
    # Padded to the longest row, with less than one window of padding per row.
    assert totals.max() - totals.min() <= max(lengths)


def test_eight_requests_are_padded_little():
    lengths = np.array([12, 9, 15, 11, 8, 17, 10, 13])
    row_of, offsets = pack(lengths, 64)
    assert row_of.max() == 1 and (offsets + lengths).max() == 48


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 12), st.integers(0, 11))
def test_windows_cover_every_piece_once_and_share_the_overlap(lengths, size, overlap):
    overlap = min(overlap, size - 1)
    windows = cut_windows(np.array(lengths, dtype=np.int64), size, overlap)
    kept = [np.arange(a, b) for a, b in zip(windows.keep_starts, windows.keep_ends, strict=True)]
    assert np.concatenate([*kept, []]).tolist() == list(range(sum(lengths)))
    assert (windows.keep_starts >= windows.starts).all()
    assert (windows.keep_ends <= windows.ends).all()
    assert (windows.ends - windows.starts <= size).all()
    span_of = np.repeat(np.arange(len(lengths)), lengths)
    for i in range(1, len(windows.starts)):
        if span_of[windows.starts[i]] == span_of[windows.starts[i - 1]]:
            assert windows.ends[i - 1] - windows.starts[i] >= overlap
            assert windows.ends[i] - windows.starts[i] == windows.ends[i - 1] - windows.starts[i - 1]
            # A kept piece has at least half of the overlap as context on the inner side.
            assert windows.keep_starts[i] - windows.starts[i] >= overlap // 2
            assert windows.ends[i - 1] - windows.keep_ends[i - 1] >= overlap // 2


@given(st.lists(st.integers(1, 50), min_size=1, max_size=9), st.integers(1, 200), st.integers(0, 100))
def test_passes_are_the_cheapest_there_are(sizes, max_items, pass_cost):
    lengths = np.array(sorted(sizes, reverse=True))
    total = len(lengths)

    def cost(passes):
        if any(b - a > 1 and lengths[a] * (b - a) > max_items for a, b in passes):
            return np.inf
        return sum(lengths[a] * (b - a) + pass_cost for a, b in passes)

    choices = product([False, True], repeat=total - 1)
    cuts = [[0, *(i + 1 for i, cut in enumerate(chosen) if cut), total] for chosen in choices]
    best = min(cost(list(pairwise(cut))) for cut in cuts)
    passes = cut_passes(lengths, max_items, pass_cost)
    assert [a for a, _ in passes] == [0, *(b for _, b in passes[:-1])]
    assert passes[-1][1] == total
    assert cost(passes) == best < np.inf


def test_overlapping_spans_give_a_token_its_pieces_from_each():
    doc = Doc(NLP.vocab, words=["book", "a", "table", "for", "two"])
    pieces = cut_pieces(TOKENIZER, [doc], lambda docs: get_strided_spans(docs, window=3, stride=2))
    got = pieces_per_token([doc], pieces)
    alone = [len(found) for found in pieces_per_token([doc], cut_pieces(TOKENIZER, [doc], get_doc_spans))]
    assert [len(found) for found in got][2] >= 2 * 1 > 0
    assert len(got[0]) == alone[0]


@pytest.mark.parametrize("start", [True, False])
def test_special_pieces_are_found(start):
    special = SpecialPieces.of(make_tokenizer(start))
    assert special.prefix.tolist() == ([0] if start else [])
    assert len(special.suffix) == 0


def test_a_text_of_many_pieces_is_cut_like_a_short_one():
    """Above `MANY_PIECES`, memory is returned to the system, which must not affect arrays that are still in use."""
    line, times = "book a table for 2 at an évening place\n", MANY_PIECES // 8
    short = cut_pieces(TOKENIZER, [NLP.make_doc(line)], get_doc_spans)
    long = cut_pieces(TOKENIZER, [NLP.make_doc(line * times)], get_doc_spans)
    assert len(long.ids) > MANY_PIECES
    assert np.array_equal(long.ids, np.tile(short.ids, times))
    shifts = np.repeat(np.arange(times) * len(line), len(short.ids))
    assert np.array_equal(long.starts, np.tile(short.starts, times) + shifts)
    assert np.array_equal(long.ends, np.tile(short.ends, times) + shifts)


@pytest.mark.parametrize("start", [True, False])
def test_a_start_token_is_added_or_left_out_whatever_the_tokenizer_does(start):
    tokenizer = make_tokenizer(start)
    found = {said: SpecialPieces.of(tokenizer, said).prefix.tolist() for said in (None, True, False)}
    assert found == {None: [0] * start, True: [0], False: []}
    tokenizer.bos_token = None
    assert SpecialPieces.of(tokenizer).prefix.tolist() == [0] * start
    with pytest.raises(SettingError, match=r"add_bos_token = true .* no start token.*tokenizer_config\.json"):
        SpecialPieces.of(tokenizer, True)
