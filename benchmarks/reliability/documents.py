"""Wild documents: arbitrary texts and tokens, with tokenizers of all kinds."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.util import filter_spans
from spacy_transformers.span_getters import get_doc_spans

from spacy_lsbillm.alignment import align, cut_pieces
from spacy_lsbillm.tagging import best_tags

from .bases import EMBEDDED, LABELS, is_real, make_pipeline, write_base
from .part import Broken, Check, Part

# For each kind, the tokenizer of a real model if it is available beside the checkout, otherwise one that is made here.
KINDS = {
    "gpt2": "byte-level",
    "qwen2.5": "byte-level, NFC",
    "mistral-v1": "byte fallback, prefix",
    "unigram, NFKC": "unigram, NFKC",
    "embedded base": "embedded base",
}
# Documents per kind, documents per case, and how many of those are also computed alone.
EACH, BATCH, ALONE = 10_000, 20, 5
TOLERANCE = 1e-5
# The maximum number of characters in a document, except in cases about length.
LONG = 600
SCRIPTS = [
    *[(0x20, 0x7E), (0xA0, 0x17F), (0x370, 0x3FF), (0x400, 0x4FF), (0x530, 0x58F), (0x590, 0x5FF), (0x600, 0x6FF)],
    *[(0x700, 0x74F), (0x900, 0x97F), (0x980, 0x9FF), (0xB80, 0xBFF), (0xE00, 0xE7F), (0xF00, 0xFFF), (0x1000, 0x109F)],
    *[(0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x137F), (0x13A0, 0x13FF), (0x1780, 0x17FF), (0x1800, 0x18AF)],
    *[(0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x21FF), (0x2E80, 0x303F), (0x3040, 0x30FF), (0x3130, 0x318F)],
    *[(0x3200, 0x33FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xFB00, 0xFDFF), (0xFE00, 0xFFFF)],
    *[(0x10000, 0x103FF), (0x12000, 0x123FF), (0x1D400, 0x1D7FF), (0x1F000, 0x1FAFF), (0x20000, 0x200FF)],
    *[(0xE0000, 0xE01EF), (0x10FF00, 0x10FFFF), (0x0, 0x1F), (0x7F, 0x9F)],
]
MARKS = [*range(0x300, 0x370), *range(0x483, 0x488), *range(0x5B0, 0x5BE), *range(0x64B, 0x660), 0x94D, 0xE47, 0x20DD]
SPACES = [*"\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\u180e\u200b\u2060\ufeff", "\r\n"]
SPACES += [chr(code) for code in range(0x2000, 0x200B)] + [" "] * 12 + ["  ", "     ", " " * 40, "\n\n\n"]
BIDI = [*"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"]
EMOJI = [
    "😀",
    "👨\u200d👩\u200d👧\u200d👦",
    "🏳️\u200d🌈",
    "👍🏽",
    "🇫🇷",
    "🇫",
    "1️⃣",
    "☠️",
    "🏴\U000e0067\U000e0062\U000e007f",
    "\u200d",
]
# Strings with a special meaning in one tokenizer or another.
SPECIAL = ["<s>", "</s>", "<unk>", "<pad>", "<|endoftext|>", "<|im_start|>", "<|mask|>", "[INST]", "[CLS]", "<0x0A>"]
SPECIAL += ["▁", "▁▁▁", "Ġ", "Ċ", "##", "\ufffd", "\ufffc", "\ufff9", "\ufdd0", "\uffff", "\0", "\0\0\0"]
COMPOSED = [
    "ﬁ",
    "½",
    "㍍",
    "ﷺ",
    "İ",
    "ß",
    "ǅ",
    "Å",
    "\u1112\u1161\u11ab",
    "\uac00\u11a8",
    "e\u0301",
    "q\u0323\u0307",
    "\u0958",
]
WORDS = [
    "book",
    "a",
    "table",
    "in",
    "New",
    "York",
    "don't",
    "U.S.A.",
    "https://a.b/c?d=e",
    "3,000.50",
    "C++",
    "évening",
]


def wild_text(draw: random.Random, longest: int) -> str:
    """A text of random parts of all kinds.

    longest (int): The maximum number of characters per word.
    """

    def word() -> str:
        low, high = draw.choice(SCRIPTS)
        size = min(longest, int(1 + draw.expovariate(0.2)))
        return "".join(chr(draw.randint(low, high)) for _ in range(size))

    def anything() -> str:
        return "".join(chr(draw.choice([draw.randrange(0xD800), draw.randrange(0xE000, 0x110000)])) for _ in range(4))

    def marked() -> str:
        letter = chr(draw.randint(*draw.choice(SCRIPTS)))
        return letter + "".join(chr(draw.choice(MARKS)) for _ in range(draw.choice([1, 2, 3, 30])))

    makers: list[Callable[[], str]] = [
        lambda: draw.choice(WORDS) + draw.choice([" ", " ", ""]),
        lambda: word() + draw.choice([" ", ""]),
        anything,
        marked,
        *((lambda some=some: draw.choice(some)) for some in (SPACES, SPACES, BIDI, EMOJI, SPECIAL, COMPOSED)),
        lambda: draw.choice(["a", "é", "日", "😀", "\u0301", " ", "."]) * draw.choice([2, 3, 7, 7, 50]),
    ]
    chosen = draw.sample(makers, draw.randint(1, len(makers)))
    text = "".join(draw.choice(chosen)() for _ in range(draw.choice([0, 1, 2, 3, 5, 8, 13, 21])))
    return text[:LONG]


def long_word(draw: random.Random, size: int) -> str:
    """A word without spaces, of about `size` bytes."""
    letters = draw.choice(["x", "ab", "abcdefghijklmnopqrstuvwxyz", "日本語", "a\u0301", "0123456789", "😀"])
    return "".join(draw.choices(letters, k=max(1, size // len(letters[0].encode()))))


@cache
def cutters() -> list[Language]:
    """Languages whose tokenizers need no further packages."""
    languages = [spacy.blank(code) for code in ("en", "zh", "ar", "fr", "xx")]
    for nlp in languages:
        nlp.max_length = 10_000_000
    return languages


def wild_doc(draw: random.Random, nlp: Language, text: str) -> Doc:
    """Tokens of a text: from some tokenizer, from none, merged, or split."""
    how = draw.choice(["tokenizer", "tokenizer", "slices", "words", "merged", "split", "part"])
    if how == "slices" or how == "words":
        longest = draw.choice([1, 1, 3, 100, 100_000])
        cuts = [0]
        while cuts[-1] < len(text):
            cuts.append(min(len(text), cuts[-1] + draw.randint(1, longest)))
        words = [text[a:b] for a, b in pairwise(cuts)]
        if how == "words":
            # Words that are spaces, or begin or end with one.
            words = [draw.choice([" ", "  x", "x ", "\n", word]) if draw.random() < 0.2 else word for word in words]
        return Doc(nlp.vocab, words=words, spaces=[draw.random() < 0.3 for _ in words])
    cut = draw.choice(cutters()).make_doc(text)
    doc = Doc(nlp.vocab, words=[token.text for token in cut], spaces=[bool(token.whitespace_) for token in cut])
    if how == "merged" and len(doc):
        spans = [doc[a : a + draw.randint(1, 4)] for a in draw.sample(range(len(doc)), min(4, len(doc)))]
        with doc.retokenize() as retokenizer:
            for span in filter_spans(spans):
                retokenizer.merge(span)
    elif how == "split":
        candidates = [token for token in doc if len(token.text) > 1]
        with doc.retokenize() as retokenizer:
            for token in draw.sample(candidates, min(3, len(candidates))):
                place = draw.randint(1, len(token.text) - 1)
                retokenizer.split(token, [token.text[:place], token.text[place:]], heads=[token, token])
    elif how == "part" and len(doc) > 1:
        begin = draw.randrange(len(doc))
        return doc[begin : draw.randint(begin + 1, len(doc))].as_doc()
    return doc


def bare_copy(doc: Doc) -> Doc:
    """The same tokens without any annotation."""
    words = [token.text for token in doc]
    return Doc(doc.vocab, words=words, spaces=[bool(token.whitespace_) for token in doc])


def vectors_of(doc: Doc) -> np.ndarray:
    """The token vectors, shape (tokens, width)."""
    # A document without tokens has no states.
    states = getattr(doc._.trf_data.model_output, "last_hidden_state", None)
    return np.zeros((0, 0)) if states is None else np.asarray(states).reshape(-1, np.asarray(states).shape[-1])


def found_in(doc: Doc) -> dict[str, Any]:
    """The spans that the heads have written."""
    return {
        "ents": [(span.start, span.end, span.label_) for span in doc.ents],
        "spans": [(span.start, span.end, span.label_) for span in doc.spans.get("sc", [])],
    }


def scores_of(doc: Doc) -> list[float]:
    """The scores of entities, of spans and of categories, in this order."""
    spans = doc.spans.get("sc", [])
    own = list(spans.attrs.get("scores", [])) if len(spans) else []
    return [*(ent._.ent_score for ent in doc.ents), *own, *(doc.cats[label] for label in sorted(doc.cats))]


def make_kind(folder: Path, kind: str) -> Language:
    """A pipeline with a tokenizer of a kind."""
    if kind == "embedded base":
        base = EMBEDDED
    else:
        base = write_base(folder / kind.replace(" ", "_"), kind if is_real(kind) else KINDS[kind])
    return make_pipeline(base, window=64)


@contextmanager
def open_documents(folder: Path) -> Iterator[Check]:
    """Prepare the cases, see `Part.open`."""
    ready: dict[str, Language] = {}

    def check(number: int, draw: random.Random) -> None:
        kind, place = list(KINDS)[number * BATCH // EACH], number % (EACH // BATCH)
        if kind not in ready:
            ready[kind] = make_kind(folder, kind)
        check_documents(ready[kind], wild_docs(ready[kind], draw, place), draw)

    yield check


def wild_docs(nlp: Language, draw: random.Random, number: int) -> list[Doc]:
    """The documents of a case; a few cases are about length.

    number (int): The number of the case among those of its kind.
    """
    texts = [wild_text(draw, 100) for _ in range(BATCH)]
    if number == 0:
        texts[draw.randrange(BATCH)] += draw.choice(["a ", "\n"]) + long_word(draw, 1_000_000) + draw.choice(["", " b"])
    elif number % 10 == 0:
        texts[draw.randrange(BATCH)] += long_word(draw, int(10 ** draw.uniform(2, 4))) + wild_text(draw, 100)
    check_surrogates(nlp, draw, draw.choice(texts))
    return [wild_doc(draw, nlp, text) for text in texts]


def check_documents(nlp: Language, docs: list[Doc], draw: random.Random) -> None:
    """Run documents and check what must hold for them.

    RAISES (Broken): It does not hold.
    """
    bare = [bare_copy(doc) for doc in docs]
    docs = list(nlp.pipe(docs))
    for doc in docs:
        check_shape(nlp, doc)
        check_spans(doc)
    check_offsets(nlp, [doc for doc in docs if len(doc) <= LONG])
    # With other documents, in another order and in other batches; some of them after they were written and read.
    again = list(enumerate(bare))
    for number, doc in enumerate(docs):
        how = draw.choice(list(TRIPS))
        other = restore(nlp, doc, how)
        if other is not None:
            again[number] = number, bare_copy(other)
    draw.shuffle(again)
    order = [number for number, _ in again]
    results = list(nlp.pipe([doc for _, doc in again], batch_size=draw.choice([1, 2, 3, 7, 128])))
    for number, result in zip(order, results, strict=True):
        check_same(nlp, docs[number], result, "in another order")
    for number in draw.sample(range(len(docs)), min(ALONE, len(docs))):
        check_same(nlp, docs[number], next(iter(nlp.pipe([bare[number].copy()]))), "alone")


def check_surrogates(nlp: Language, draw: random.Random, text: str) -> None:
    """Check that spaCy refuses a text that cannot be encoded, without any lasting effect."""
    place = draw.randint(0, len(text))
    broken = text[:place] + chr(draw.randint(0xD800, 0xDFFF)) + text[place:]
    try:
        list(nlp.pipe([broken]))
    except UnicodeEncodeError:
        return
    raise Broken(f"a lone surrogate went through: {broken[:80]!r}")


def preview(doc: Doc) -> str:
    """The first tokens of a document, for messages."""
    return repr([token.text_with_ws for token in doc][:60])[:400]


def check_shape(nlp: Language, doc: Doc) -> None:
    """Check that there is one finite vector per token, and zeros only for tokens without pieces."""
    vectors, width = vectors_of(doc), nlp.get_pipe("transformer").model.get_dim("nO")
    if len(doc) and vectors.shape != (len(doc), width):
        raise Broken(f"{len(doc)} tokens have vectors of the shape {vectors.shape}: {preview(doc)}")
    if not np.isfinite(vectors).all():
        raise Broken(f"vectors are not finite: {preview(doc)}")
    if not len(doc):
        return
    lengths = np.asarray(doc._.trf_data.align.lengths)
    if len(lengths) != len(doc) or ((vectors != 0).any(axis=1) != (lengths > 0)).any():
        raise Broken(f"tokens without pieces, {lengths.tolist()}, are not those with zeros: {preview(doc)}")
    silent = [token.text for token, length in zip(doc, lengths, strict=True) if not length and token.text.strip()]
    if silent and not all(may_vanish(text) for text in silent):
        raise Broken(f"tokens without a piece: {silent[:5]!r} in {preview(doc)}")


def may_vanish(text: str) -> bool:
    """Whether normalisers may remove a token: control characters and invisible ones."""
    return all(not character.isprintable() or 0xFE00 <= ord(character) <= 0xFE0F for character in text)


def check_offsets(nlp: Language, docs: Sequence[Doc]) -> None:
    """Check that each token has exactly the pieces that share a character with it.

    Pieces must also be inside their document and in order.
    """
    shim = nlp.get_pipe("transformer").model.shims[0]
    pieces = cut_pieces(shim.backbone.tokenizer, docs, get_doc_spans)
    of_piece, counts = align(docs, pieces)
    own = iter(np.split(of_piece, np.cumsum(counts)[:-1])) if len(counts) else iter(())
    base = 0
    for doc in docs:
        text = doc.text
        inside = (pieces.starts >= base) & (pieces.starts <= base + len(text))
        if (pieces.ends[inside] > base + len(text)).any() or (pieces.ends < pieces.starts).any():
            raise Broken(f"pieces lie outside of the text: {preview(doc)}")
        numbers = np.flatnonzero(inside & (pieces.ends > pieces.starts))
        starts, ends = pieces.starts[numbers] - base, pieces.ends[numbers] - base
        for token in doc:
            begin, end = token.idx, token.idx + len(token)
            if text[begin:end] != token.text:
                raise Broken(f"the characters of {token.text!r} are {text[begin:end]!r}: {preview(doc)}")
            found, expected = next(own), numbers[(starts < end) & (ends > begin)]
            if not np.array_equal(found, expected):
                raise Broken(f"{token.text!r} has the pieces {list(found)}, not {list(expected)}: {preview(doc)}")
        base += len(text) + 1


def check_spans(doc: Doc) -> None:
    """Check that spans are in order, disjoint and valid.

    Their labels and scores must be known, and they must not begin or end with a space.
    """
    text = doc.text
    for what, spans in (("doc.ents", list(doc.ents)), ("doc.spans", list(doc.spans.get("sc", [])))):
        for before, span in pairwise([None, *spans]):
            if span.label_ not in LABELS or not 0 <= span.start < span.end <= len(doc):
                raise Broken(f"{what} has {span!r} ({span.label_}, {span.start} to {span.end}): {preview(doc)}")
            if before is not None and before.end > span.start:
                raise Broken(f"{what} has {before!r} and {span!r}, which overlap: {preview(doc)}")
            if span[0].is_space or span[-1].is_space:
                raise Broken(f"{what} has {span.text!r}, which begins or ends with white space: {preview(doc)}")
            if text[span.start_char : span.end_char] != span.text:
                raise Broken(f"{what} has {span.text!r} at other characters: {preview(doc)}")
    scores = scores_of(doc)
    if not all(0 <= score <= 1 + TOLERANCE for score in scores):
        raise Broken(f"scores {scores}: {preview(doc)}")


def by_bin(doc: Doc) -> Doc:
    """The document after a round trip through a `DocBin`."""
    packed = DocBin(store_user_data=True, docs=[doc]).to_bytes()
    return next(DocBin().from_bytes(packed).get_docs(doc.vocab))


def by_json(doc: Doc) -> Doc | None:
    """The document after a round trip through JSON, which has no vectors.

    RETURNS (Doc | None): The document; None if JSON does not preserve even its tokens.
    """
    if not json_has_tokens(doc):
        return None
    plain = doc.copy()
    plain.user_data = {}
    return Doc(doc.vocab).from_json(plain.to_json())


TRIPS: dict[str, Callable[[Doc], Doc | None]] = {
    "to_bytes": lambda doc: Doc(doc.vocab).from_bytes(doc.to_bytes()),
    "DocBin": by_bin,
    "to_json": by_json,
}


def restore(nlp: Language, doc: Doc, how: str) -> Doc | None:
    """The document after it was written and read.

    how (str): One of `TRIPS`.
    RETURNS (Doc | None): The document; None if the format does not preserve its tokens.
    RAISES (Broken): It has changed.
    """
    other = TRIPS[how](doc)
    if other is None:
        return None
    for get in (lambda one: [token.text_with_ws for token in one], found_in, lambda one: dict(one.cats)):
        if get(doc) != get(other):
            raise Broken(f"{how}: {get(other)!r:.300}, was {get(doc)!r:.300} in {preview(doc)}")
    if how != "to_json":
        close(vectors_of(doc), vectors_of(other), f"after {how}: {preview(doc)}")
    return other


def json_has_tokens(doc: Doc) -> bool:
    """Whether the tokens of a document survive JSON.

    spaCy aligns them again with the text, which fails for some tokens, such as those that end with a space.
    """
    bare = bare_copy(doc)
    try:
        again = Doc(doc.vocab).from_json(bare.to_json())
    except (ValueError, AssertionError):
        return False
    return [token.text_with_ws for token in again] == [token.text_with_ws for token in bare]


def close(one: np.ndarray, other: np.ndarray, how: str) -> None:
    """Compare the vectors of two documents.

    RAISES (Broken): They differ.
    """
    if not one.size and not other.size:
        return
    if one.shape != other.shape:
        raise Broken(f"vectors of the shape {other.shape}, were {one.shape}, {how}")
    apart = float(np.abs(one - other).max()) if one.size else 0.0
    if apart > TOLERANCE * max(1.0, float(np.abs(one).max())):
        raise Broken(f"vectors differ by {apart:.2g} {how}")


def check_same(nlp: Language, doc: Doc, other: Doc, how: str) -> None:
    """Check that vectors, spans and categories are the same."""
    close(vectors_of(doc), vectors_of(other), f"{how}: {preview(doc)}")
    if found_in(other) != found_in(doc) and not is_tie(nlp, doc, other):
        raise Broken(f"{how} {found_in(other)}, before {found_in(doc)}: {preview(doc)}")
    for label, score in doc.cats.items():
        if abs(other.cats[label] - score) > 10 * TOLERANCE:
            raise Broken(f"{how} cats {other.cats}, before {doc.cats}: {preview(doc)}")


def is_tie(nlp: Language, one: Doc, other: Doc) -> bool:
    """Whether two sequences of tags have equal scores, so that rounding decides between them."""
    for name in ("sequence_labeler", "spans"):
        pipe = nlp.get_pipe(name)
        lengths = np.array([len(one)])
        logits = [np.concatenate(pipe.model.predict([doc])) for doc in (one, other)]
        logs = [rows - np.log(np.exp(rows - rows.max(1, keepdims=True)).sum(1, keepdims=True)) for rows in logits]
        logs = [rows - rows.max(1, keepdims=True) for rows in logs]
        tags = [best_tags(rows, lengths, pipe.scheme) for rows in logs]
        rows = np.arange(len(one))
        if abs(logs[0][rows, tags[0]].sum() - logs[0][rows, tags[1]].sum()) > 1e-3:
            return False
    return True


PART = Part(
    "documents",
    len(KINDS) * EACH // BATCH,
    f"50,000 wild documents, {BATCH} per case, 10,000 with each of five tokenizers: "
    + ", ".join(f"{kind} (real)" if is_real(kind) else KINDS[kind] for kind in KINDS),
    "no exception; one vector per token; the same to 1e-5 alone (a quarter), in a batch and in any order; exact "
    "offsets; well-formed spans; the same after `to_bytes`, `DocBin` and `to_json`",
    open_documents,
)
