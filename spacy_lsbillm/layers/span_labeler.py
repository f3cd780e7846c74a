"""The model of the `span_labeler`: scores for every label and every span up to a maximum length.

They are computed from the span's first word, last word and length.

The scorer is the biaffine one of Yu et al. (2020, "Named Entity Recognition as Dependency Parsing"). For a span from
word i to word j, label k has the score

    a(i) U_k b(j) + v_k a(i) + w_k b(j) + c_k(j - i + 1)

where a and b are two projections of the word vectors. If a 1 is appended to b, everything but c is one product of two
vectors: a linear layer computes the first of them for each label and first word, and b is the other. So all spans cost
one matrix product per first word, and no span vectors are computed.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
from spacy.tokens import Doc
from thinc.api import Dropout, Model, Relu, chain
from thinc.types import Floats1d, Floats2d, Floats3d

from ..alignment import is_word
from ..values import check_at_least
from .left_out import sample_of
from .listening import guard, listeners_in
from .output_layer import output_layer

# The initial probability that a span has a label. It is low, as few spans have one: otherwise the first updates would
# only learn that.
PRIOR = 0.01
NO_SPAN = -np.inf


def build_span_labeler(
    tok2vec: Model[list[Doc], list[Floats2d]],
    hidden_size: int = 64,
    block_size: int = 1_000_000,
    nO: int | None = None,
) -> Model[list[Doc], list[Floats3d]]:
    """Build the model: dropout, two projections of the word vectors with a ReLU, dropout, and a biaffine scorer.

    tok2vec (Model): Maps documents to one array of token vectors each.
    hidden_size (int): The width of a projection.
    block_size (int): The number of values, scores or factors of them, that `score_blocks` computes at once; at least
        those of one word.
    nO (int | None): The number of labels; None: set by the component.
    RETURNS (Model): Maps documents to unnormalised scores of spans, one array of shape (words, labels, max_length)
        each. Element [i, k, n] is the score of label k for the span of n + 1 words from word i, and minus infinity if
        the document has no such span. White space does not count as a word. The component sets the dimension `nL`,
        which is max_length.
    RAISES (SettingError): A size is not a whole number of at least 1.
    """
    for name, size in (("hidden_size", hidden_size), ("block_size", block_size)):
        check_at_least(name, size, 1)
    for listener in listeners_in(tok2vec):
        guard(listener)
    halves: Model = chain(Dropout(0.0), Relu(2 * hidden_size), Dropout(0.0))
    output = output_layer(nI=hidden_size)
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
    """Infer the width of the vectors, and create the scorer for the labels and the maximum length that were set."""
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
    """Compute the scores of all spans at once, for training. Predictions use `score_blocks`."""
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
    """Compute the scores of all spans in blocks of first words, to limit the memory.

    It then does not grow with the number of spans: it holds the projections of all words and about `block_size` scores.

    RETURNS (Iterator): The index of the block's first word, counted over all documents, and the scores of the spans
        that begin at the words of the block, shape (words, labels, max_length).
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
    """Compute both projections of the words of all documents.

    RETURNS (tuple): The two projections concatenated, shape (words, 2 * hidden_size); the number of words from each
        word to the end of its document, including itself, shape (words,); the number of words per document; and the
        backward pass.
    """
    xp = model.ops.xp
    hidden = model.get_ref("output_layer").get_dim("nI")
    word = [is_word(doc) for doc in docs]
    lengths = [int(of_doc.sum()) for of_doc in word]
    room = xp.asarray(np.concatenate([np.zeros(0, dtype="i"), *(np.arange(n, 0, -1, dtype="i") for n in lengths)]))
    if not sum(map(len, docs)):
        # A listener has no vectors then.
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
    """The projections of last words with a 1 appended to each, followed by rows of zeros.

    The spans from each word are then one window over them. Shape (words + max_length - 1, hidden_size + 1).
    """
    hidden = model.get_ref("output_layer").get_dim("nI")
    rows = model.ops.alloc2f(len(ends) + model.get_dim("nL") - 1, hidden + 1)
    if len(ends):
        rows[: len(ends), :-1] = ends
        rows[: len(ends), -1] = 1.0
    return rows


def windows(model: Model, lasts: Floats2d, count: int) -> Floats3d:
    """The possible last words of each first word, as a view; shape (first words, hidden_size + 1, max_length)."""
    row, column = lasts.strides
    shape = (count, lasts.shape[1], model.get_dim("nL"))
    return model.ops.xp.lib.stride_tricks.as_strided(lasts, shape, (row, column, row))


def exists(model: Model, room: Floats1d) -> Any:
    """Whether the span of each length from each word lies within its document; boolean, shape (words, max_length)."""
    return model.ops.xp.arange(model.get_dim("nL")) < room[:, None]


def by_label(model: Model, firsts: Floats2d) -> Floats3d:
    """The factors for each label that are multiplied with last words; shape (first words, labels, hidden_size + 1)."""
    hidden = model.get_ref("output_layer").get_dim("nI")
    return cast(Floats3d, firsts.reshape((len(firsts), model.get_dim("nO"), hidden + 1)))


def span_scores(model: Model, firsts: Floats2d, lasts: Floats2d, room: Floats1d) -> Floats3d:
    """The scores of the spans that begin at some words.

    firsts (Floats2d): The first-word projections of these words.
    lasts (Floats2d): The last-word projections of these words and of the next `max_length` - 1.
    room (Floats1d): The number of words from each to the end of its document.
    RETURNS (Floats3d): Shape (words, labels, max_length).
    """
    xp = model.ops.xp
    scores = xp.matmul(by_label(model, firsts), windows(model, lasts, len(firsts)))
    scores += model.get_param("length")
    scores += xp.where(exists(model, room), 0.0, NO_SPAN).astype("f")[:, None]
    return scores


def span_gradients(model: Model, firsts: Floats2d, lasts: Floats2d, gradient: Floats3d) -> tuple[Floats2d, Floats2d]:
    """The gradients of `firsts` and `lasts` of `span_scores`.

    They are computed in blocks of words, as each window in the gradient is a copy.
    """
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
