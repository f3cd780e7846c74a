"""The model of the `span_labeler`: a score of every label for every span up to a length, from its first word, its last
word and its length.

The scorer is the biaffine one of Yu et al. (2020, "Named Entity Recognition as Dependency Parsing"): of a span from
word i to word j, label k has the score

    a(i) U_k b(j) + v_k a(i) + w_k b(j) + c_k(j - i + 1)

where a and b are two projections of the word vectors. With a 1 behind b all but c is one product of two vectors: a
linear layer makes one of them for each label and first word, and b is the other. So the work for all spans is a matrix
product a word, in which no vector of a span is ever made.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
from spacy.tokens import Doc
from thinc.api import Dropout, Linear, Model, Relu, chain, zero_init
from thinc.types import Floats1d, Floats2d, Floats3d

from ..alignment import is_word
from ..errors import SettingError
from ..values import is_whole
from .left_out import sample_of
from .listening import guard, listeners_in

# Before training each span has a label with this probability, as few spans have one: without it, the first updates
# would have to learn nothing but that.
PRIOR = 0.01
NO_SPAN = -np.inf


def build_span_labeler(
    tok2vec: Model[list[Doc], list[Floats2d]],
    hidden_size: int = 64,
    block_size: int = 1_000_000,
    nO: int | None = None,
) -> Model[list[Doc], list[Floats3d]]:
    """Dropout, two projections of the word vectors with a ReLU, dropout, and a biaffine scorer.

    tok2vec (Model): Documents to one array of token vectors each.
    hidden_size (int): The width of a projection.
    block_size (int): Numbers that `score_blocks` makes at once, be it scores or what they are products of; those of one
        word at the least.
    nO (int | None): The number of labels; None: set by the component.
    RETURNS (Model): Documents to the scores of spans (not normalised), one array of shape (words, labels, max_length)
        each, in which [i, k, n] is that of label k for the span of n + 1 words from word i. Where the document has no
        such span it is minus infinity. White space is no word. The component sets the dimension `nL`, which is
        max_length.
    RAISES (SettingError): A size is no whole number of at least 1.
    """
    for name, size in (("hidden_size", hidden_size), ("block_size", block_size)):
        if not is_whole(size) or size < 1:
            raise SettingError(f"{name} = {size!r} is not allowed: it must be a whole number of at least 1.")
    for listener in listeners_in(tok2vec):
        guard(listener)
    halves: Model = chain(Dropout(0.0), Relu(2 * hidden_size), Dropout(0.0))
    output: Model = Linear(nI=hidden_size, init_W=zero_init)
    return Model(
        "span_labeler",
        forward,
        init=init,
        layers=[tok2vec, halves, output],
        params={"length": None},
        dims={"nO": nO, "nL": None},
        attrs={"block_size": int(block_size)},
        refs={"tok2vec": tok2vec, "halves": halves, "output_layer": output},
    )


def init(model: Model, X: list[Doc] | None = None, Y: Any = None) -> None:
    """Find the width of the vectors, and make the scorer for the labels and the lengths that were set."""
    tok2vec, halves, output = model.layers
    sample = sample_of(X)
    tok2vec.initialize(X=sample)
    if sample:
        rows = tok2vec.predict(sample)
        halves.initialize(X=model.ops.xp.concatenate(rows))
    else:
        halves.initialize()
    n_labels, longest = model.get_dim("nO"), model.get_dim("nL")
    output.set_dim("nO", n_labels * (output.get_dim("nI") + 1))
    output.initialize()
    prior = model.ops.alloc2f(n_labels, longest)
    prior += np.log(PRIOR / (1 - PRIOR))
    model.set_param("length", prior)


def forward(
    model: Model, docs: list[Doc], is_train: bool
) -> tuple[list[Floats3d], Callable[[list[Floats3d]], list[Floats2d]]]:
    """Scores of all spans at once; `score_blocks` is for predictions."""
    ops, output = model.ops, model.get_ref("output_layer")
    halves, room, lengths, backprop_halves = word_halves(model, docs, is_train)
    begins, ends = ops.xp.hsplit(halves, 2)
    firsts, backprop_firsts = output(ops.as_contig(begins), is_train)
    lasts = padded(model, ends)
    scores = span_scores(model, firsts, lasts, room)
    cuts = np.cumsum(lengths)[:-1].tolist()

    def backprop(gradient: list[Floats3d]) -> list[Floats2d]:
        joined = ops.xp.where(exists(model, room)[:, None], ops.xp.concatenate(gradient), 0.0).astype("f")
        model.inc_grad("length", joined.sum(axis=0))
        d_firsts, d_lasts = span_gradients(model, firsts, lasts, joined)
        d_begins = backprop_firsts(d_firsts)
        return backprop_halves(ops.xp.hstack([d_begins, d_lasts[: len(joined), :-1]]))

    return ops.xp.split(scores, cuts), backprop


def score_blocks(model: Model, docs: list[Doc]) -> Iterator[tuple[int, Floats3d]]:
    """The scores of all spans, some first words at a time, so that memory does not grow with the number of spans: at
    once there are the projections of all words, and some `block_size` scores.

    RETURNS (Iterator): The number of the first word, counted through all documents, and the scores of spans that begin
        there and at the next ones, shape (words, labels, max_length).
    """
    halves, room, _, _ = word_halves(model, docs, False)
    if not len(halves):
        return
    begins, ends = model.ops.xp.hsplit(halves, 2)
    lasts = padded(model, ends)
    longest = model.get_dim("nL")
    size = max(1, model.attrs["block_size"] // (max(longest, lasts.shape[1]) * model.get_dim("nO")))
    for at in range(0, len(halves), size):
        firsts = model.get_ref("output_layer").predict(model.ops.as_contig(begins[at : at + size]))
        yield at, span_scores(model, firsts, lasts[at : at + size + longest - 1], room[at : at + size])


def word_halves(
    model: Model, docs: list[Doc], is_train: bool
) -> tuple[Floats2d, Floats1d, list[int], Callable[[Floats2d], list[Floats2d]]]:
    """Both projections of the words of all documents.

    RETURNS (tuple): The projections, side by side, shape (words, 2 * hidden_size); how many words there are from each
        to the end of its document, itself counted, shape (words,); the words of each document; and the way back.
    """
    xp = model.ops.xp
    hidden = model.get_ref("output_layer").get_dim("nI")
    word = [is_word(doc) for doc in docs]
    lengths = [int(found.sum()) for found in word]
    room = xp.asarray(np.concatenate([np.zeros(0, dtype="i"), *(np.arange(n, 0, -1, dtype="i") for n in lengths)]))
    if not sum(map(len, docs)):
        # A listener has nothing to give then.
        return model.ops.alloc2f(0, 2 * hidden), room, lengths, lambda gradient: []
    vectors, backprop_vectors = model.layers[0](docs, is_train)
    joined = xp.concatenate([rows for rows in vectors if len(rows)])
    words = xp.asarray(np.flatnonzero(np.concatenate(word)))
    halves, backprop_words = model.get_ref("halves")(joined[words], is_train)

    def backprop(gradient: Floats2d) -> list[Floats2d]:
        d_joined = xp.zeros_like(joined)
        d_joined[words] = backprop_words(gradient)
        cuts = np.cumsum([len(rows) for rows in vectors])[:-1].tolist()
        return backprop_vectors(xp.split(d_joined, cuts))

    return halves, room, lengths, backprop


def padded(model: Model, ends: Floats2d) -> Floats2d:
    """The projections of last words with a 1 behind each, and rows of zeros where the last document ends, so that the
    spans from each word are one window over them; shape (words + max_length - 1, hidden_size + 1)."""
    hidden = model.get_ref("output_layer").get_dim("nI")
    rows = model.ops.alloc2f(len(ends) + model.get_dim("nL") - 1, hidden + 1)
    if len(ends):
        rows[: len(ends), :-1] = ends
        rows[: len(ends), -1] = 1.0
    return rows


def windows(model: Model, lasts: Floats2d, count: int) -> Floats3d:
    """The possible last words of each first word, without a copy; shape (first words, hidden_size + 1, max_length)."""
    row, column = lasts.strides
    shape = (count, lasts.shape[1], model.get_dim("nL"))
    return model.ops.xp.lib.stride_tricks.as_strided(lasts, shape, (row, column, row))


def exists(model: Model, room: Floats1d) -> Any:
    """Whether a span of each length from each word is within its document, shape (words, max_length), boolean."""
    return model.ops.xp.arange(model.get_dim("nL")) < room[:, None]


def by_label(model: Model, firsts: Floats2d) -> Floats3d:
    """What is multiplied with last words; shape (first words, labels, hidden_size + 1)."""
    hidden = model.get_ref("output_layer").get_dim("nI")
    return cast(Floats3d, firsts.reshape((len(firsts), model.get_dim("nO"), hidden + 1)))


def span_scores(model: Model, firsts: Floats2d, lasts: Floats2d, room: Floats1d) -> Floats3d:
    """The scores of the spans from some words.

    firsts (Floats2d): Of these words.
    lasts (Floats2d): Of these words and the `max_length` - 1 behind them.
    room (Floats1d): How many words there are from each to the end of its document.
    RETURNS (Floats3d): Shape (words, labels, max_length).
    """
    xp = model.ops.xp
    scores = xp.matmul(by_label(model, firsts), windows(model, lasts, len(firsts)))
    scores += model.get_param("length")
    scores += xp.where(exists(model, room), 0.0, NO_SPAN).astype("f")[:, None]
    return scores


def span_gradients(model: Model, firsts: Floats2d, lasts: Floats2d, gradient: Floats3d) -> tuple[Floats2d, Floats2d]:
    """The gradients of what `span_scores` takes, some words at a time, as a window in the gradient is a copy."""
    xp = model.ops.xp
    longest, width = model.get_dim("nL"), lasts.shape[1]
    d_firsts, d_lasts = xp.zeros_like(firsts), xp.zeros_like(lasts)
    size = max(1, model.attrs["block_size"] // (longest * width))
    for at in range(0, len(firsts), size):
        part = gradient[at : at + size]
        seen = windows(model, lasts[at:], len(part))
        d_firsts[at : at + size] = xp.matmul(part, seen.transpose(0, 2, 1)).reshape((len(part), -1))
        d_seen = xp.matmul(by_label(model, firsts[at : at + size]).transpose(0, 2, 1), part)
        for length in range(longest):
            d_lasts[at + length : at + length + len(part)] += d_seen[:, :, length]
    return d_firsts, d_lasts
