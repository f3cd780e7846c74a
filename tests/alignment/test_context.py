"""Spans with context from their document: the context goes through the model, and each token counts once."""

import numpy as np
import pytest
import spacy
import torch
from hypothesis import given
from hypothesis import strategies as st
from pipelines import NER, backbone, same
from spacy.training import Example
from spacy_transformers.span_getters import get_doc_spans, get_sent_spans, get_strided_spans
from thinc.api import Adam
from transformers import PreTrainedTokenizerFast

from spacy_lsbillm.alignment import ContextSpans, SpecialPieces, cut_pieces, cut_windows, make_batch
from spacy_lsbillm.alignment.statistics import CutSettings, count_pieces
from spacy_lsbillm.errors import SettingError
from spacy_lsbillm.layers import backbone_shim

pytestmark = pytest.mark.any_stack

SENTENCES = ["play some jazz by miles davis .", "it will rain .", "book a table for two in paris .", "add it now ."]
TEXT = " ".join(SENTENCES)
BLANK = spacy.blank("xx")
SENTS = {"@span_getters": "spacy-transformers.sent_spans.v1"}
DOCS = {"@span_getters": "spacy-transformers.doc_spans.v1"}
STRIDED = {"@span_getters": "spacy-transformers.strided_spans.v1", "window": 4, "stride": 3}


def in_context(context, spans=None):
    return {"@span_getters": "spacy-lsbillm.context_spans.v1", "context": context, "spans": spans}


def build(folder, get_spans, heads=(), sentences=True, initialize=True, **model):
    nlp = spacy.blank("xx")
    if sentences:
        nlp.add_pipe("sentencizer")
    settings = {"@architectures": "spacy-lsbillm.BiLLMModel.v1", "name": str(folder), "get_spans": get_spans, **model}
    nlp.add_pipe("billm_transformer", name="transformer", config={"model": settings})
    for head in heads:
        nlp.add_pipe(head, config={"model": NER})
    if initialize:
        nlp.initialize()
    return nlp


def vectors(nlp, *texts):
    return [doc._.trf_data.model_output.last_hidden_state[0] for doc in nlp.pipe(texts)]


@pytest.fixture(scope="module")
def tokenizer(make_base):
    return PreTrainedTokenizerFast.from_pretrained(make_base())


# Which pieces are seen


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=5), max_size=4), st.integers(0, 5), st.integers(1, 9), st.booleans()
)
def test_each_piece_is_kept_once_from_its_own_span_with_its_context(docs, context, more, wide):
    size = 2 * context + more
    overlap = min(size - 1, 2 * context + wide)
    before, after = [], []
    for spans in docs:
        ends = np.cumsum(spans, dtype=np.int64)
        before += [min(context, end - length) for end, length in zip(ends, spans, strict=True)]
        after += [min(context, sum(spans) - end) for end in ends]
    lengths = np.array([length for spans in docs for length in spans], dtype=np.int64)
    windows = cut_windows(lengths, size, overlap, np.array(before, dtype=np.int64), np.array(after, dtype=np.int64))
    kept = [np.arange(a, b) for a, b in zip(windows.keep_starts, windows.keep_ends, strict=True)]
    assert np.concatenate([*kept, []]).tolist() == list(range(sum(lengths)))
    assert (windows.ends - windows.starts <= size).all()
    span_of = np.repeat(np.arange(len(lengths)), lengths)
    doc_of = np.repeat(np.arange(len(docs)), [sum(spans) for spans in docs])
    for i, pieces in enumerate(kept):
        assert len(set(span_of[pieces])) == 1
        in_doc = np.flatnonzero(doc_of == doc_of[pieces[0]])
        assert windows.starts[i] <= max(in_doc[0], pieces[0] - context) and windows.starts[i] >= in_doc[0]
        assert windows.ends[i] > min(in_doc[-1], pieces[-1] + context) and windows.ends[i] <= in_doc[-1] + 1


@given(
    words=st.lists(st.sampled_from(["a", "rain", "  ", "\n", "日本", "é", "👩‍👩‍👧", "."]), max_size=30),
    context=st.integers(1, 6),
    stride=st.integers(1, 7),
    row=st.sampled_from([0, 64]),
    repeat=st.integers(0, 2),
)
def test_any_text_has_all_its_pieces_once(tokenizer, words, context, stride, row, repeat):
    docs = [BLANK.make_doc(text) for text in (" ".join(words), "", TEXT)]
    spans = ContextSpans(lambda docs: get_strided_spans(docs, window=stride, stride=stride), context)
    special = SpecialPieces.of(tokenizer)
    sizes = {"overlap": 2 * context, "max_items": 100, "pass_cost": 8, "row": row, "repeat": repeat}
    batch = make_batch(tokenizer, special, docs, spans, window=24, **sizes)
    whole = make_batch(tokenizer, special, docs, get_doc_spans, window=24, **sizes)
    cells = np.concatenate([part.ids.ravel() for part in batch.micro_batches])
    assert (cells[batch.slot_of_piece] == batch.ids).all() and (batch.ids == whole.ids).all()
    assert len(set(batch.slot_of_piece.tolist())) == len(batch.ids)
    assert (batch.of_piece == whole.of_piece).all() and batch.pieces_per_doc == whole.pieces_per_doc


def test_spans_have_the_pieces_of_their_tokens(tokenizer):
    nlp = spacy.blank("xx")
    nlp.add_pipe("sentencizer")
    docs = list(nlp.pipe([TEXT, "", "rain"]))
    pieces = cut_pieces(tokenizer, docs, ContextSpans(get_sent_spans, 3))
    parts = np.split(pieces.ids, np.cumsum(pieces.lengths)[:-1])
    assert [tokenizer.decode(part).strip() for part in parts] == [*SENTENCES, "rain"]
    assert pieces.before.tolist() == [0, 3, 3, 3, 0] and pieces.after.tolist() == [3, 3, 3, 0, 0]


def test_pieces_are_counted_with_the_context(tokenizer):
    nlp = spacy.blank("xx")
    nlp.add_pipe("sentencizer")
    found = {}
    for context in (0, 4):
        cutting = CutSettings(
            tokenizer,
            SpecialPieces.of(tokenizer),
            ContextSpans(get_sent_spans, context),
            window=100,
            overlap=2 * context,
            batch_size=2,
            white_space="lines",
            max_items=1000,
            pass_cost=0,
            row=0,
        )
        found[context] = count_pieces(nlp.pipe([TEXT, "rain"]), cutting)
    assert found[0].windows == found[4].windows == len(SENTENCES) + 1
    # One start piece per window, and four pieces on both sides of each sentence boundary.
    assert found[4].items - found[4].padding == found[4].pieces + len(SENTENCES) + 1 + 2 * 4 * (len(SENTENCES) - 1)


# Results


@pytest.mark.parametrize("settings", [{}, {"unmask": "none"}, {"unmask": "0011", "repeat": 1}, {"window": 16}])
def test_the_vectors_are_those_of_the_windows_in_which_a_token_is_no_context(make_base, settings):
    """Computed by hand: one window per sentence with its context, or per part of a long sentence."""
    context = 4
    nlp = build(make_base(), in_context(context), output="pieces", **settings)
    model, shim = backbone(nlp), backbone_shim(nlp.get_pipe("transformer").model)
    pieces = cut_pieces(model.tokenizer, [nlp(TEXT)], ContextSpans(get_sent_spans, context))
    size = shim.window - len(shim.special)
    windows = cut_windows(pieces.lengths, size, 2 * context, pieces.before, pieces.after)
    assert len(windows.starts) == len(SENTENCES) if "window" not in settings else len(windows.starts) > len(SENTENCES)
    expected = []
    for start, end, keep_start, keep_end in zip(*vars(windows).values(), strict=True):
        seen = np.tile(pieces.ids[start:end], 1 + settings.get("repeat", 0))
        row = torch.tensor([[*shim.special.prefix, *seen, *shim.special.suffix]])
        first = len(shim.special.prefix) + len(seen) - (end - start) + keep_start - start
        with torch.inference_mode():
            expected.append(model.states(row, torch.ones_like(row))[0, first : first + keep_end - keep_start].numpy())
    found = vectors(nlp, TEXT, "rain", TEXT)
    assert same([found[0], found[2]], [np.concatenate(expected)] * 2)


def test_what_is_near_counts_and_what_is_far_does_not(make_base):
    nlp = build(make_base(), in_context(2))
    before, near, far = vectors(nlp, TEXT, TEXT.replace("it will", "we will"), TEXT.replace("add it", "add me"))
    end = len(nlp.make_doc(SENTENCES[0]))
    assert not same([before[:end]], [near[:end]])
    assert same([before[:end]], [far[:end]])


@pytest.mark.parametrize("spans", [None, SENTS, DOCS, STRIDED])
@pytest.mark.parametrize("settings", [{}, {"unmask": "0011", "repeat": 1, "window": 16}])
def test_without_context_nothing_is_another(make_base, spans, settings):
    plain = vectors(build(make_base(), spans or SENTS, **settings), TEXT, "rain")
    none = vectors(build(make_base(), in_context(0, spans), **settings), TEXT, "rain")
    assert all((one == other).all() for one, other in zip(plain, none, strict=True))


def test_a_document_that_fits_is_seen_whole_or_in_windows_with_context(make_base):
    whole = vectors(build(make_base(), DOCS, window=60), TEXT)
    assert same(vectors(build(make_base(), in_context(8, DOCS), window=60), TEXT), whole)
    shared = vectors(build(make_base(), DOCS, window=30, overlap=16), TEXT)
    assert same(vectors(build(make_base(), in_context(8, DOCS), window=30, overlap=0), TEXT), shared)


def test_the_window_of_a_new_pipeline_has_room_for_the_context(make_base):
    def window(base, get_spans):
        shim = backbone_shim(build(base, get_spans).get_pipe("transformer").model)
        return shim.window, shim.overlap

    base = make_base("llama", max_position_embeddings=256)
    assert window(base, SENTS) == (64, 0)
    assert window(base, in_context(40)) == (64 + 80, 80)
    assert window(make_base("llama", max_position_embeddings=64), in_context(10)) == (64, 20)


# In a pipeline


def test_a_pipeline_learns_with_context_and_keeps_it(make_base, tmp_path):
    nlp = build(make_base(), in_context(8), heads=["ner"], initialize=False)
    spans = [(TEXT.index(text), TEXT.index(text) + len(text), "x") for text in ("miles davis", "paris")]
    data = [Example.from_dict(nlp.make_doc(TEXT), {"entities": spans})]
    nlp.initialize(lambda: data)
    optimizer, losses = Adam(0.01), []
    for _ in range(20):
        losses.append(nlp.update(data, sgd=optimizer, losses={}, annotates=["sentencizer"])["ner"])
    assert losses[-1] < 0.5 * losses[0]
    expected = vectors(nlp, TEXT)
    nlp.to_disk(tmp_path / "pipeline")
    loaded = spacy.load(tmp_path / "pipeline")
    assert same(vectors(loaded, TEXT), expected)
    alone = {"components": {"transformer": {"model": {"get_spans": {"context": 0}}}}}
    assert not same(vectors(spacy.load(tmp_path / "pipeline", config=alone), TEXT), expected)


def test_what_cannot_be_is_refused(make_base):
    for wrong in (-1, 1.5):
        with pytest.raises(ValueError, match=f"context.*{wrong}|{wrong}.*context"):
            build(make_base(), in_context(wrong))
    with pytest.raises(SettingError, match=r"context = 8 is not allowed with window = 16: .* context of at most 7, or"):
        build(make_base(), in_context(8), window=16)
    with pytest.raises(SettingError, match=r"must cover each document.*its token 4\. Give strided_spans a stride"):
        build(make_base(), in_context(8, STRIDED))(TEXT)
    with pytest.raises(SettingError, match=r"no sentence boundaries.*annotating_components"):
        build(make_base(), in_context(8), sentences=False)(TEXT)
