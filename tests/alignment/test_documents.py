"""Any document: text of all of Unicode, odd tokens, long ones, through tokenizers of all kinds."""

import re
import time
import tracemalloc
from itertools import pairwise
from random import Random

import numpy as np
import pytest
import spacy
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pipelines import backbone, build
from spacy.tokens import Doc
from spacy_transformers.span_getters import get_doc_spans
from tiny import TEXTS, make_model
from tokenizers_of_all_kinds import LOSSY, MAKERS, REAL, REAL_FOLDER, tokenizer_of

from spacy_lsbillm.alignment import SpecialPieces, align, cut_pieces, cut_windows, make_batch
from spacy_lsbillm.alignment.white_space import show
from spacy_lsbillm.layers.billm_model import ModelSettings

pytestmark = pytest.mark.any_stack

KINDS = [*MAKERS, *LOSSY]
EXAMPLES, DOCS = 20, 50
VOCAB = spacy.blank("xx").vocab
PIPELINES = [spacy.blank("en"), spacy.blank("zh"), spacy.blank("ar")]
FRAGMENTS = [
    *["book a table", "évening", "don't", "<s>", "</s>", "<|endoftext|>", "<0x0A>", "▁", "Ġ", "https://a.b/c?d=e"],
    *[" ", "  ", "     ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2028", "\u200b", "\ufeff", "\0", "\x07", "\x85"],
    *[
        "😀",
        "👨\u200d👩\u200d👧",
        "🏳️\u200d🌈",
        "👍🏽",
        "🇫🇷",
        "1️⃣",
        "e\u0301",
        "a\u0307\u0323",
        "q\u0323\u0307",
        "\u0301",
        "\u0328",
    ],
    *[
        "مرحبا بالعالم",
        "שָׁלוֹם",
        "ﷺ",
        "\u202eabc\u202c",
        "สวัสดี",
        "日本語です",
        "中文。",
        "\u1112\u1161\u11ab",
        "\uac00\u11a8",
        "한국",
    ],
    *["ﬁ", "½", "㍍", "①", "İ", "ß", "ﬀ", "Å", "\u0958", "नमस्ते", "\U000e0001", "\ufdd0", "\uffff", "\U0010ffff"],
]
characters = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
strings = st.lists(st.one_of(st.sampled_from(FRAGMENTS), characters), max_size=6).map("".join)
spaces = st.sampled_from([fragment for fragment in FRAGMENTS if fragment.isspace()])
spaced = st.lists(
    st.tuples(st.lists(st.one_of(spaces, st.sampled_from(FRAGMENTS)), max_size=12).map("".join), st.integers(0, 999)),
    min_size=DOCS,
    max_size=DOCS,
)
documents = st.lists(st.tuples(strings, st.integers(0, 999)), min_size=DOCS, max_size=DOCS)


def make_doc(text, choice):
    """A spaCy tokenizer's tokens, or odd ones: any slices of the text, some with a space after them."""
    if choice % 5 < len(PIPELINES):
        return PIPELINES[choice % 5].make_doc(text)
    random = Random(choice)
    longest = random.choice([1, 1, 3, 100])
    cuts = [0]
    while cuts[-1] < len(text):
        cuts.append(min(len(text), cuts[-1] + random.randint(1, longest)))
    words = [text[a:b] for a, b in pairwise(cuts)]
    return Doc(VOCAB, words=words, spaces=[random.random() < 0.3 for _ in words])


def characters_shown(text, white_space):
    """From the definition, and slowly: the characters that the tokenizer gets, each with its position in the text."""
    if white_space == "text" or not text:
        return [*zip(text, range(len(text)), strict=True)]
    if text.isspace():
        return [(" ", 0)]
    shown = []
    for run in re.finditer(r"\s+|\S", text.rstrip()):
        if not run[0].isspace():
            shown.append((run[0], run.start() if shown else 0))
        elif run.start():
            breaks = min(2, len(f"a{run[0]}a".splitlines()) - 1) if white_space == "lines" else 0
            shown += [("\n", run.start() + number) for number in range(breaks)]
            shown.append((" ", run.end() if breaks else run.start()))
    return shown


def characters_of_pieces(tokenizer, text, white_space):
    """From the definition, and slowly: the characters of each piece.

    A lost space belongs to the pieces that start behind it, any other lost character to the pieces of the character
    before it.
    """
    shown = characters_shown(text, white_space)
    as_shown = "".join(character for character, _ in shown)
    places = [*(place for _, place in shown), len(text)]
    offsets = tokenizer(as_shown, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    offsets = [(places[a], places[b]) for a, b in offsets]
    pieces = [set(range(a, b)) for a, b in offsets]
    lost = set(range(len(text))).difference(*pieces)
    for (start, end), piece in zip(offsets, pieces, strict=True):
        place = start - 1
        while place in lost and text[place].isspace():
            piece.add(place)
            place -= 1
        place = end
        while start < end and place in lost and not text[place].isspace():
            piece.add(place)
            place += 1
    return pieces


def check(kind, docs, white_space="text"):
    """Each token of each document has exactly the pieces that share a character with it."""
    tokenizer = tokenizer_of(kind)
    pieces = cut_pieces(tokenizer, docs, get_doc_spans, white_space)
    of_piece, counts = align(docs, pieces)
    assert len(counts) == sum(map(len, docs))
    found = iter(np.split(of_piece, np.cumsum(counts))) if len(counts) else iter(())
    before = 0
    for doc in docs:
        text = doc[:].text
        sets = characters_of_pieces(tokenizer, text, white_space)
        covered = set().union(*sets)
        for token in doc:
            own = range(token.idx, token.idx + len(token))
            expected = [before + i for i, piece in enumerate(sets) if not piece.isdisjoint(own)]
            assert next(found).tolist() == expected, f"{kind}, {white_space}: {text!r}, {token.text!r}"
        if kind not in LOSSY:
            lost = [character for i, character in enumerate(text) if i not in covered and not character.isspace()]
            assert not lost, f"{kind}: {text!r}"
        before += len(sets)
    assert before == len(pieces.ids)


# No shrinking: a failure names the text and the token, and finding smaller examples takes minutes.
many = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)


@many
@given(documents)
def test_tokens_have_the_pieces_that_share_characters_with_them(drawn):
    docs = [make_doc(text, choice) for text, choice in drawn]
    for kind in KINDS:
        check(kind, docs)


@settings(many, max_examples=2)
@given(documents, spaced)
@pytest.mark.parametrize("white_space", ["lines", "blank"])
def test_so_they_have_however_white_space_is_shown(white_space, drawn, more):
    docs = [make_doc(text, choice) for text, choice in [*drawn, *more]]
    for kind in [*KINDS, *(name for name in REAL if (REAL_FOLDER / name).is_dir())]:
        check(kind, docs, white_space)


@many
@given(documents)
@pytest.mark.parametrize("name", REAL)
def test_real_tokenizers_too(name, drawn):
    if not (REAL_FOLDER / name).is_dir():
        pytest.skip(f"the tokenizer {name} does not lie beside the checkout")
    check(name, [make_doc(text, choice) for text, choice in drawn])


@pytest.mark.parametrize("kind", KINDS)
def test_words_have_the_pieces_that_they_have_between_blanks(kind):
    """Also after a line break that is kept."""
    plain = PIPELINES[0].make_doc("book a table at an italian place")
    expected = ids_of([plain], kind)[1]
    for white in ("  ", "\t", "\n", " \n\n ", "\r\n", "\u00a0", "\u2028"):
        doc = PIPELINES[0].make_doc(f"{white}{plain.text.replace(' ', white)}{white}")
        words = [token.i for token in doc if not token.is_space]
        for white_space in ("blank", "lines"):
            found = ids_of([doc], kind, white_space=white_space)[1]
            assert [found[i] for i in words] == expected, (white, white_space)


@pytest.mark.parametrize(
    ("text", "lines", "blank"),
    [
        ("a b", "a b", "a b"),
        ("a\tb\u00a0c  d", "a b c d", "a b c d"),
        ("a\nb", "a\n b", "a b"),
        ("a \r\n b", "a\n b", "a b"),
        ("a\n\nb\r\n\r\n\r\nc", "a\n\n b\n\n c", "a b c"),
        ("a\u2028b\x85c\x0cd", "a\n b\n c\n d", "a b c d"),
        ("\n a \n", "a", "a"),
        ("a ", "a", "a"),
        (" \n", " ", " "),
        ("", "", ""),
        ("a\u200bb\ufeff", "a\u200bb\ufeff", "a\u200bb\ufeff"),
    ],
)
def test_how_white_space_is_shown(text, lines, blank):
    assert [show(text, choice).text for choice in ("text", "lines", "blank")] == [text, lines, blank]


def ids_of(docs, kind="byte-level", **cutting):
    """A batch, and for each token the ids of its pieces, which stand in for states."""
    tokenizer = tokenizer_of(kind)
    cutting = {"window": 512, "overlap": 128, "max_items": 4096, "pass_cost": 64, **cutting}
    batch = make_batch(tokenizer, SpecialPieces.of(tokenizer), docs, get_doc_spans, **cutting)
    rows = np.concatenate([[], *(part.ids.ravel() for part in batch.micro_batches)]).astype(int)
    ends = np.cumsum(batch.pieces_per_token).tolist()
    return batch, [rows[batch.slots[a:b]].tolist() for a, b in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("docs", [[], [Doc(VOCAB)], [Doc(VOCAB), Doc(VOCAB)]])
def test_nothing_makes_an_empty_batch(docs):
    batch, tokens = ids_of(docs)
    assert batch.micro_batches == [] and tokens == []
    assert batch.tokens_per_doc == [0] * len(docs)


def test_an_empty_document_between_others_changes_nothing():
    one, other = make_doc("book a table", 0), make_doc("日本 😀", 0)
    assert ids_of([Doc(VOCAB), one, Doc(VOCAB), other])[1] == ids_of([one])[1] + ids_of([other])[1]


def test_a_document_may_stand_in_a_batch_twice():
    doc, other = make_doc("book a table", 0), make_doc("play some jazz", 0)
    alone = ids_of([doc])[1]
    assert ids_of([doc, other, doc])[1] == alone + ids_of([other])[1] + alone


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud83d \ude00"])
def test_no_document_holds_a_lone_surrogate(text):
    """spaCy's strings are UTF-8, which cannot encode them, so no document can contain one."""
    with pytest.raises(UnicodeEncodeError):
        PIPELINES[0].make_doc(text)
    with pytest.raises(UnicodeEncodeError):
        Doc(VOCAB, words=[text])


@pytest.mark.parametrize("text", ["\0", "a\0b", "\0\0 \0", "x" * 300 + "\0y"])
def test_nul_is_a_character_as_any_other(text):
    """spaCy keeps it alone, inside and at the end of a token."""
    doc = PIPELINES[0].make_doc(text)
    assert doc.text == text
    for kind in KINDS:
        check(kind, [doc, Doc(VOCAB, words=[text, "\0"])])


def test_composed_characters_go_with_their_letter():
    """NFC composes two characters into one letter; a token that is only the accent shares the letter's pieces."""
    doc = Doc(VOCAB, words=["e", "\u0301", "x"], spaces=[False] * 3)
    _, (letter, accent, x) = ids_of([doc], "byte-level, NFC")
    assert letter == accent != x
    _, (composed,) = ids_of([Doc(VOCAB, words=["é"])], "byte-level, NFC")
    assert letter == composed
    _, (letter, accent, _) = ids_of([doc], "byte-level")
    assert letter != accent and accent


def test_a_space_between_tokens_dilutes_neither():
    """ "a b" has the pieces "a", "Ġ", "b": the second one covers only the space between the tokens."""
    doc = Doc(VOCAB, words=["x", "x"])
    pieces = cut_pieces(tokenizer_of("byte-level"), [doc], get_doc_spans)
    assert len(pieces.ids) == 3
    of_piece, counts = align([doc], pieces)
    assert of_piece.tolist() == [0, 2] and counts.tolist() == [1, 1]


@pytest.mark.parametrize("kind", ["byte-level", "byte-level, NFC, trimmed", "byte fallback, prefix", "unigram, NFKC"])
@pytest.mark.parametrize("white_space", ["text", "lines", "blank"])
def test_tokens_of_white_space_have_pieces(kind, white_space):
    for text in ("book   a\n\n table", "\n\tbook a table  \n", "  ", "\n"):
        doc = PIPELINES[0].make_doc(text)
        _, tokens = ids_of([doc], kind, white_space=white_space)
        # This tokenizer drops white space at the end.
        if kind != "unigram, NFKC" or not text[-1].isspace() or (white_space != "text" and text.strip()):
            assert all(tokens) and any(token.is_space for token in doc)


def test_a_token_without_pieces_has_zeros():
    """This tokenizer strips accents, and spaces at the end. An accent at the beginning has no letter to belong to."""
    doc = Doc(VOCAB, words=["\u0301", "a"], spaces=[False, False])
    batch, tokens = ids_of([doc], "unigram, accents stripped")
    assert batch.pieces_per_token.tolist() == [0, 1] and tokens[0] == []
    batch, _ = ids_of([PIPELINES[0].make_doc("book  ")], "words, unknown")
    assert batch.pieces_per_token[0] > 0 and batch.pieces_per_token[1] == 0


def test_a_piece_that_covers_many_tokens_belongs_to_each():
    doc = Doc(VOCAB, words=list("rain"), spaces=[False] * 4)
    _, tokens = ids_of([doc], "byte-level")
    assert len({tuple(token) for token in tokens}) == 1 and len(tokens[0]) == 1


@pytest.mark.parametrize("kind", ["byte-level, truncation", "byte-level, start token", "byte-level"])
def test_a_tokenizer_that_truncates_and_pads_does_so_no_more(kind):
    text = " ".join(TEXTS)
    _, tokens = ids_of([make_doc(text, 0)], kind)
    assert tokens == ids_of([make_doc(text, 0)], "byte-level, start token")[1]
    assert all(tokens)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("window", "overlap"), [(3, 0), (3, "most"), (16, 0), (16, "most")])
def test_a_token_longer_than_a_window_has_all_its_pieces(kind, window, overlap):
    special = len(SpecialPieces.of(tokenizer_of(kind)))
    overlap = window - special - 1 if overlap == "most" else overlap
    doc = Doc(VOCAB, words=["a", "xyzé😀" * 1000, "b"])
    _, tokens = ids_of([doc], kind, window=window, overlap=overlap)
    pieces = cut_pieces(tokenizer_of(kind), [doc], get_doc_spans)
    of_piece, counts = align([doc], pieces)
    expected = np.split(pieces.ids[of_piece], np.cumsum(counts))[:-1]
    assert tokens == [ids.tolist() for ids in expected]
    assert all(tokens)


@pytest.fixture(scope="module")
def make_pipeline(tmp_path_factory):
    """make_pipeline(kind, **settings): the component over a tiny model with this kind of tokenizer, ready to use."""

    def make(kind, **cutting):
        folder = tmp_path_factory.mktemp("base")
        tokenizer = tokenizer_of(kind)
        model = make_model("llama", 0, len(tokenizer), num_hidden_layers=2, max_position_embeddings=512)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        nlp = build(folder, heads=(), **cutting)
        nlp.initialize()
        return nlp

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_has_a_finite_vector_or_zeros(kind, make_pipeline):
    """Through the component, in small windows, with the same result twice."""
    nlp = make_pipeline(kind, window=8)

    @settings(many, max_examples=4)
    @given(documents)
    def run(drawn):
        docs = [make_doc(text, choice) for text, choice in drawn]
        results = []
        for _ in range(2):
            list(nlp.get_pipe("transformer").pipe(docs, batch_size=20))
            results.append([doc._.trf_data for doc in docs])
        _, pieces_per_token = align(docs, cut_pieces(tokenizer_of(kind), docs, get_doc_spans, "lines"))
        for doc, data, again, counts in zip(
            docs, *results, np.split(pieces_per_token, np.cumsum([len(doc) for doc in docs])[:-1]), strict=True
        ):
            if not len(doc):
                continue
            states = data.model_output.last_hidden_state
            assert states.shape == (1, len(doc), 32)
            assert np.isfinite(states).all()
            assert np.array_equal(states, again.model_output.last_hidden_state)
            assert (data.align.lengths == (counts > 0)).all()
            assert ((states[0] != 0).any(axis=1) == (counts > 0)).all()

    run()


@pytest.mark.parametrize(("window", "overlap", "letters"), [(2, 0, 400), (16, 0, 5000), (16, 14, 400)])
def test_vectors_of_a_long_document_are_those_of_its_windows_run_by_hand(window, overlap, letters, make_pipeline):
    """A text with a token of up to 5,000 letters. Each piece has the state that the backbone gives it in its window."""
    nlp = make_pipeline("byte-level, start token", window=window, overlap=overlap)
    words = [*" ".join(TEXTS).split(), "xyzé" * (letters // 4), *" ".join(TEXTS).split()]
    doc = Doc(nlp.vocab, words=words)
    doc = nlp.get_pipe("transformer")(doc)
    pieces = cut_pieces(tokenizer_of("byte-level, start token"), [doc], get_doc_spans)
    windows = cut_windows(pieces.lengths, window - 1, overlap)
    assert len(windows.starts) > len(pieces.ids) // window
    states = np.zeros((len(pieces.ids), 32), dtype=np.float32)
    with torch.inference_mode():
        for start, end, first, last in zip(
            windows.starts, windows.ends, windows.keep_starts, windows.keep_ends, strict=True
        ):
            ids = torch.tensor([[0, *pieces.ids[start:end]]])
            alone = backbone(nlp).states(ids, torch.ones_like(ids))[0, 1:]
            states[first:last] = alone[first - start : last - start]
    of_piece, counts = align([doc], pieces)
    expected = [states[own].mean(axis=0) for own in np.split(of_piece, np.cumsum(counts)[:-1])]
    assert np.allclose(doc._.trf_data.model_output.last_hidden_state[0], expected, rtol=1e-4, atol=1e-4)


def test_a_document_of_hundreds_of_thousands_of_characters(make_pipeline):
    nlp = make_pipeline("byte-level, start token", window=128, overlap=16)
    text = " ".join([*TEXTS, "日本語です 😀 مرحبا", "x" * 20_000])
    text = (text + " ") * (300_000 // len(text) + 1)
    begun = time.process_time()
    doc = nlp(text)
    took = time.process_time() - begun
    assert len(doc.text) == len(text) > 300_000
    states = doc._.trf_data.model_output.last_hidden_state[0]
    assert states.shape == (len(doc), 32)
    assert np.isfinite(states).all() and (states != 0).any(axis=1).all()
    # Processor time, independent of other load: far more than it takes, and far less than quadratic time would.
    assert took < 100


def test_a_token_of_hundreds_of_thousands_of_characters_takes_bounded_memory():
    """At most 1 KB per character."""
    doc = Doc(VOCAB, words=["x" * 200_000])
    tracemalloc.start()
    batch, _ = ids_of([doc])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert batch.pieces_per_token.tolist() == [200_000]
    assert peak < 2e8


@pytest.mark.parametrize(
    ("longest", "width", "window", "overlap"),
    [
        (256, 192, 96, 0),  # the embedded base
        (2048, 576, 288, 0),
        (32768, 896, 448, 0),
        (None, 4096, 512, 16),
        (100, 4096, 100, 0),
        (2048, 16, 64, 0),
    ],
)
def test_default_windows(longest, width, window, overlap):
    unset = ModelSettings(get_doc_spans, window=None, overlap=None)
    assert unset.fitted(longest, width, n_special=1) == (window, overlap)
