"""Probabilities of whole spans: forward-backward over the sequences of tags that a scheme allows.

A sequence of tags has the product of its tags' probabilities as its weight, and no weight if it is ill-formed; the
probability of a span is the share of all weight that goes to sequences with exactly that span (Lafferty et al., 2001;
Culotta and McCallum, 2004). As in `decode`, what may follow depends only on whether a span is open and on its label, so
that a step takes time linear in the number of tags. IOB2 is BILUO whose U has the score of B and whose L that of I:
each sequence of the one stands for one of the other.

Time is linear in tokens and no step is one token's: all documents are cut into chunks of `CHUNK` tokens, which go
through the recursion side by side. What is open where a chunk begins is a guess at first, "nothing"; chunks whose guess
was wrong are done again with what their neighbour found, until none is. A chunk soon forgets how it began, so that two
rounds are the rule; the k-th chunk of a document is right after k rounds whatever the scores are. Beside the scores
there are two numbers a token in memory, and the tags of one token of each chunk.
"""

from dataclasses import dataclass

import numpy as np

from .scheme import INSTEAD, Scheme, Spans

CHUNK = 128
# What is less probable than this (1.8e-35) is taken for this probable: no document is then without a sequence.
LEAST = np.float32(-80.0)
# How near to each other two guesses of a chunk's beginning are the same one.
NEAR, NOTHING = 1e-9, 1e-30
# Tokens of which beginnings of spans are looked for at once.
AT_ONCE = 65536


@dataclass(frozen=True)
class Around:
    """What there is before and after spans, as logarithms. The probability of a span is the exponential of what is
    before its first token, of the scores of its tags, and of what is after its last, added up.

    before (ndarray[float64]): Of each token, the weight of all that may stand before it where nothing is open there;
        shape (tokens,).
    after (ndarray[float64]): The weight of all that may stand after it where nothing is open there, as a share of the
        weight of all sequences; shape (tokens,).
    going_on (ndarray[float32] | None): The weight of what may stand after it where a span with a label goes on there,
        in units of `after`; shape (tokens, labels).
    """

    before: np.ndarray
    after: np.ndarray
    going_on: np.ndarray | None = None


@dataclass(frozen=True)
class Chunks:
    """Pieces of documents, in order.

    first (ndarray[int64]), last (ndarray[int64]): Their first and last tokens.
    document (ndarray[int64]): The number of the document of each.
    """

    first: np.ndarray
    last: np.ndarray
    document: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each."""
        return self.last - self.first + 1


def around_spans(
    scores: np.ndarray,
    lengths: np.ndarray,
    scheme: Scheme,
    going_on: bool = False,
    opened: np.ndarray | None = None,
) -> Around:
    """What there is before and after any span.

    scores (ndarray[float32]): The log-probabilities of the tags of each token; shape (tokens, tags).
    lengths (ndarray[int]): Tokens of each document.
    going_on (bool): Also where spans go on, which takes one number a token and label.
    opened (ndarray[float32] | None): Is filled with the weight of what may stand before each token where a span with a
        label is open there, in units of `before`; shape (tokens, labels).
    """
    chunks = _cut(lengths)
    if not len(scores):
        return Around(np.zeros(0), np.zeros(0), np.zeros((0, len(scheme.labels)), dtype=np.float32))
    ahead, total = _sweep(scores, chunks, scheme, backwards=False, going_on=opened)
    goes = np.empty((len(scores), len(scheme.labels)), dtype=np.float32) if going_on else None
    behind, _ = _sweep(scores, chunks, scheme, backwards=True, going_on=goes)
    return Around(ahead, behind - np.repeat(total[chunks.document], chunks.lengths), goes)


def candidates(scores: np.ndarray, lengths: np.ndarray, scheme: Scheme, least: float) -> Spans:
    """All spans, overlapping ones too, that have at least some probability. There are at most 1 / least that begin at a
    token.

    scores (ndarray[float32]): The log-probabilities of the tags of each token; shape (tokens, tags).
    lengths (ndarray[int]): Tokens of each document.
    least (float): The probability, above 0.
    RETURNS (Spans): In the order of their beginnings and ends, with their probabilities.
    """
    around = around_spans(scores, lengths, scheme, going_on=True)
    bound = np.log(least)
    found = [
        _beginning_in(slice(at, at + AT_ONCE), scores, around, scheme, bound) for at in range(0, len(scores), AT_ONCE)
    ]
    if not found:
        nothing = np.zeros(0, dtype=np.int64)
        return Spans(nothing, nothing, nothing, nothing.astype(np.float32))
    start, end, label, log = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((label, end, start))
    return Spans(start[order], end[order], label[order], np.exp(np.minimum(log[order], 0.0)).astype(np.float32))


def tag_marginals(scores: np.ndarray, lengths: np.ndarray, scheme: Scheme) -> np.ndarray:
    """The probability of each tag of each token: the share of all weight that goes to sequences with that tag there.

    scores (ndarray[float32]): The log-probabilities of the tags of each token; shape (tokens, tags).
    lengths (ndarray[int]): Tokens of each document.
    RETURNS (ndarray[float32]): Shape (tokens, tags); each row adds up to 1.
    """
    if not len(scores):
        return np.zeros(scores.shape, dtype=np.float32)
    opened = np.empty((len(scores), len(scheme.labels)), dtype=np.float32)
    around = around_spans(scores, lengths, scheme, going_on=True, opened=opened)
    assert around.going_on is not None
    closed_before, closed_after = around.before[:, None], around.after[:, None]
    open_before, open_after = closed_before + opened, closed_after + around.going_on
    log = np.full(scores.shape, -np.inf)
    log[:, :1] = closed_before + closed_after
    # IOB2's B is also a U, and its I also an L.
    for kind, before, after in (
        ("B", closed_before, open_after),
        ("U", closed_before, closed_after),
        ("I", open_before, open_after),
        ("L", open_before, closed_after),
    ):
        columns = _columns(scheme, kind)
        log[:, columns] = np.logaddexp(log[:, columns], before + after)
    found = np.exp(log + np.maximum(scores, LEAST))
    return (found / found.sum(axis=1, keepdims=True)).astype(np.float32)


def _beginning_in(
    tokens: slice, scores: np.ndarray, around: Around, scheme: Scheme, bound: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Starts, ends, labels and log-probabilities of the candidates that begin at some of the tokens."""
    assert around.going_on is not None
    begin, inside, last, unit = (_columns(scheme, kind) for kind in "BILU")
    before, after = around.before[tokens, None], around.after[tokens, None]
    alone = before + scores[tokens, unit] + after
    start, label = np.nonzero(alone >= bound)
    found = [(start + tokens.start, start + tokens.start + 1, label, alone[start, label])]
    weight = before + scores[tokens, begin]
    start, label = np.nonzero(weight + after + around.going_on[tokens] >= bound)
    weight = weight[start, label]
    at = start + tokens.start
    start = at
    # One more token of all open candidates at a time.
    while len(start):
        at = at + 1
        ended = weight + scores[at, last.start + label] + around.after[at]
        whole = ended >= bound
        found.append((start[whole], at[whole] + 1, label[whole], ended[whole]))
        weight = weight + scores[at, inside.start + label]
        goes = weight + around.after[at] + around.going_on[at, label] >= bound
        start, at, label, weight = start[goes], at[goes], label[goes], weight[goes]
    starts, ends, labels, logs = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return starts, ends, labels, logs


def _columns(scheme: Scheme, kind: str) -> slice:
    return scheme.columns(kind if kind in scheme.kinds else INSTEAD[kind])


def _cut(lengths: np.ndarray) -> Chunks:
    lengths = np.asarray(lengths, dtype=np.int64)
    lengths = lengths[lengths > 0]
    starts = np.cumsum(lengths) - lengths
    counts = -(-lengths // CHUNK)
    document = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = starts[document] + number * CHUNK
    return Chunks(first, np.minimum(first + CHUNK, (starts + lengths)[document]) - 1, document)


def _sweep(
    scores: np.ndarray, chunks: Chunks, scheme: Scheme, *, backwards: bool, going_on: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The recursion in one direction. Read backwards, a span begins with its L and ends with its B.

    going_on (ndarray | None): Is filled.
    RETURNS (tuple): Of each token, the logarithm of the weight of what was read before it with nothing open; and of
        each document, that of all of it.
    """
    n_chunks, n_labels = len(chunks.first), len(scheme.labels)
    closed_log = np.empty(len(scores))
    # The weights where nothing is open, and where a span with each label is; their sum is 1.
    entered = np.zeros((n_chunks, 1 + n_labels))
    entered[:, 0] = 1.0
    left = np.empty_like(entered)
    scale = np.empty(n_chunks)
    order = np.arange(n_chunks)[::-1] if backwards else np.arange(n_chunks)
    follows = np.append(False, np.diff(chunks.document[order]) == 0)
    todo = np.arange(n_chunks)
    with np.errstate(divide="ignore"):
        while len(todo):
            _read(scores, chunks, scheme, todo, entered, (left, scale), closed_log, backwards, going_on)
            new = entered.copy()
            new[order[1:][follows[1:]]] = left[order[:-1][follows[1:]]]
            same = np.abs(new - entered) <= NEAR * new + NOTHING
            todo = np.flatnonzero(~same.all(axis=1))
            entered[todo] = new[todo]
        # The scales of the chunks of a document that were read before.
        added = np.cumsum(scale[order])
        begun = np.flatnonzero(~follows)
        before = added - scale[order] - np.repeat((added - scale[order])[begun], np.diff(np.append(begun, n_chunks)))
        earlier = np.empty(n_chunks)
        earlier[order] = before
        closed_log += np.repeat(earlier, chunks.lengths)
        ended = order[np.append(begun[1:], n_chunks) - 1]
        total = np.empty(len(begun))
        total[chunks.document[ended]] = np.log(left[ended, 0]) + earlier[ended] + scale[ended]
    return closed_log, total


def _read(
    scores: np.ndarray,
    chunks: Chunks,
    scheme: Scheme,
    todo: np.ndarray,
    entered: np.ndarray,
    results: tuple[np.ndarray, np.ndarray],
    closed_log: np.ndarray,
    backwards: bool,
    going_on: np.ndarray | None,
) -> None:
    """Some chunks from how they are entered to how they are left, side by side.

    results (tuple): Weights where each chunk is left, and the logarithm of what they were divided by; are filled.
    closed_log (ndarray), going_on (ndarray | None): Of the tokens; are filled.
    """
    left, scale = results
    begin, inside, last, unit = (_columns(scheme, kind) for kind in "BILU")
    if backwards:
        begin, last = last, begin
    # Longest first: those that go on at a step are then the first of all.
    todo = todo[np.argsort(-chunks.lengths[todo], kind="stable")]
    lengths = chunks.lengths[todo]
    edge, way = (chunks.last[todo], -1) if backwards else (chunks.first[todo], 1)
    closed, opened = entered[todo, 0], entered[todo, 1:]
    divided = np.zeros(len(todo))
    active = np.searchsorted(-lengths, -np.arange(lengths[0]), side="left")
    for step, going in enumerate(active.tolist()):
        if going < len(closed):
            ended = todo[going : len(closed)]
            left[ended, 0], left[ended, 1:], scale[ended] = closed[going:], opened[going:], divided[going:]
            closed, opened, divided = closed[:going], opened[:going], divided[:going]
        token = edge[:going] + way * step
        log = np.log(closed)
        closed_log[token] = log + divided
        if going_on is not None:
            going_on[token] = np.log(opened) - log[:, None]
        chance = np.exp(np.maximum(scores[token], LEAST))
        stays = chance[:, 0] + chance[:, unit].sum(axis=1)
        shuts = closed * stays + np.einsum("ij,ij->i", opened, chance[:, last])
        opened = closed[:, None] * chance[:, begin] + opened * chance[:, inside]
        both = shuts + opened.sum(axis=1)
        closed, opened = shuts / both, opened / both[:, None]
        divided = divided + np.log(both)
    ended = todo[: len(closed)]
    left[ended, 0], left[ended, 1:], scale[ended] = closed, opened, divided
