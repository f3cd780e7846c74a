"""Probabilities of whole spans, by forward-backward over the tag sequences that a scheme allows.

The weight of a tag sequence is the product of its tags' probabilities, and 0 if it is ill-formed. The probability of a
span is the fraction of the total weight that belongs to sequences with exactly this span (Lafferty et al., 2001;
Culotta and McCallum, 2004). As in `decode`, what may follow depends only on whether a span is open and on its label, so
that a step takes time linear in the number of tags. IOB2 is treated as BILUO in which U has the score of B and L that
of I: their sequences correspond one to one.

Time is linear in the number of tokens, without a Python step per token, see `chunks`. Memory beside the scores: two
numbers per token, and the tags of one token of each chunk.
"""

from dataclasses import dataclass

import numpy as np

from .chunks import Chunks, States, active, cut, settle
from .crf import LEAST, Read, chances, expected, exponentials, read, ways_out
from .scheme import Scheme, Spans

# The number of tokens at which starts of spans are searched at once.
AT_ONCE = 65536


@dataclass(frozen=True)
class Around:
    """The weights of everything before and after a span, as logarithms.

    The probability of a span is the exponential of the sum of the weight before its first token, the scores of its
    tags, and the weight after its last token.

    before (ndarray[float64]): For each token, the weight of everything before it if no span is open there; shape
        (tokens,).
    after (ndarray[float64]): The weight of everything after it if no span is open there, relative to the weight of all
        sequences; shape (tokens,).
    going_on (ndarray[float32] | None): The weight of everything after it if a span with a label continues there,
        relative to `after`; shape (tokens, labels).
    """

    before: np.ndarray
    after: np.ndarray
    going_on: np.ndarray | None = None

    def spans(self, tags: np.ndarray, scores: np.ndarray, scheme: Scheme) -> Spans:
        """The spans of well-formed tags, with their probabilities.

        tags (ndarray[int]): The tags of all tokens, shape (tokens,).
        scores (ndarray[float32]): The scores that `around_spans` received.
        """
        return scheme.spans(tags, scores[np.arange(len(tags)), tags], self.before, self.after)

    def first(self, tokens: slice, tags: slice) -> np.ndarray:
        """The weight before spans that begin with the given tags."""
        return self.before[tokens, None]

    def last(self, tokens: np.ndarray | slice, tags: np.ndarray | slice) -> np.ndarray:
        """The weight after spans that end with the given tags."""
        return self.after[tokens, None] if isinstance(tokens, slice) else self.after[tokens]

    def within(self, tokens: np.ndarray | slice, tags: np.ndarray | slice, labels: np.ndarray | slice) -> np.ndarray:
        """The weight after tokens within spans.

        tags, labels: The same labels, with and without the kind of the tag.
        """
        assert self.going_on is not None
        return Around.last(self, tokens, tags) + self.going_on[tokens, labels]

    def step(self, tags: np.ndarray, following: np.ndarray) -> np.ndarray | float:
        """The transition scores between tags."""
        return 0.0


@dataclass(frozen=True, kw_only=True)
class AroundInCrf(Around):
    """The same with learned transitions: the weights depend on the tags.

    They are computed for those that are asked for, usually few; `before` and `after` have only their common scale.

    ahead (Read), behind (Read): The weights of the tags before and after each token.
    goes_on (ndarray[float64]), ends (ndarray[float64]): The weights of transitions within spans, and of others.
    transitions (ndarray[float32]): Added to the scores of the tags within a span.
    """

    ahead: Read
    behind: Read
    goes_on: np.ndarray
    ends: np.ndarray
    transitions: np.ndarray

    def spans(self, tags: np.ndarray, scores: np.ndarray, scheme: Scheme) -> Spans:
        chosen = scores[np.arange(len(tags)), tags].astype(np.float64)
        # Transitions into the first tag of a span are part of the weight before it.
        chosen[1:] += np.where(scheme.continues(tags[1:]), self.transitions[tags[:-1], tags[1:]], 0.0)
        before, after, tokens = self.before.copy(), self.after.copy(), np.flatnonzero(tags)
        before[tokens] += _log_weights(self.ahead, tokens, self.ends.T, tags[tokens])
        after[tokens] += _log_weights(self.behind, tokens, self.ends, tags[tokens])
        return scheme.spans(tags, chosen, before, after)

    def first(self, tokens: slice, tags: slice) -> np.ndarray:
        return super().first(tokens, tags) + _log_weights(self.ahead, tokens, self.ends.T, tags)

    def last(self, tokens: np.ndarray | slice, tags: np.ndarray | slice) -> np.ndarray:
        return super().last(tokens, tags) + _log_weights(self.behind, tokens, self.ends, tags)

    def within(self, tokens: np.ndarray | slice, tags: np.ndarray | slice, labels: np.ndarray | slice) -> np.ndarray:
        return super().last(tokens, tags) + _log_weights(self.behind, tokens, self.goes_on, tags)

    def step(self, tags: np.ndarray, following: np.ndarray) -> np.ndarray | float:
        return self.transitions[tags, following]


def _log_weights(read: Read, tokens: np.ndarray | slice, steps: np.ndarray, tags: np.ndarray | slice) -> np.ndarray:
    """The logarithm of the weight of everything read before tokens with the given tags.

    It is computed with each of the tags for slices, with one tag per token for arrays.

    steps (ndarray[float64]): The weights of transitions, from the tag of the row to the tag that was read before.
    """
    with np.errstate(divide="ignore"):
        if isinstance(tokens, slice):
            return np.log(read.weights[tokens] @ steps[tags].T)
        return np.log(np.einsum("ij,ij->i", read.weights[tokens], steps[tags]))


def around_spans(
    scores: np.ndarray,
    lengths: np.ndarray,
    scheme: Scheme,
    going_on: bool = False,
    transitions: np.ndarray | None = None,
) -> Around:
    """Compute the weights before and after any span.

    scores (ndarray[float32]): The log-probabilities of the tags of each token; shape (tokens, tags).
    lengths (ndarray[int]): Tokens per document.
    going_on (bool): Also compute the weights where spans continue, which takes one number per token and label.
    transitions (ndarray[float32] | None): Transition scores of a CRF, see `crf`; None: all allowed transitions are
        equal.
    """
    if not len(scores):
        return Around(np.zeros(0), np.zeros(0), np.zeros((0, len(scheme.labels)), dtype=np.float32))
    chunks = cut(lengths)
    if transitions is not None:
        return _around_with(transitions, scores, chunks, scheme)
    ahead, total = _sweep(scores, chunks, scheme, backwards=False)
    goes = np.empty((len(scores), len(scheme.labels)), dtype=np.float32) if going_on else None
    behind, _ = _sweep(scores, chunks, scheme, backwards=True, going_on=goes)
    return Around(ahead, behind - np.repeat(total[chunks.document], chunks.lengths), goes)


def _around_with(transitions: np.ndarray, scores: np.ndarray, chunks: Chunks, scheme: Scheme) -> Around:
    goes_on, ends = ways_out(transitions, scheme)
    ahead = read(scores, chunks, goes_on + ends, scheme, backwards=False)
    behind = read(scores, chunks, goes_on + ends, scheme, backwards=True)
    after = behind.scale - np.repeat(ahead.total[chunks.document], chunks.lengths)
    return AroundInCrf(
        ahead.scale, after, ahead=ahead, behind=behind, goes_on=goes_on, ends=ends, transitions=transitions
    )


def tag_marginals(
    scores: np.ndarray, lengths: np.ndarray, scheme: Scheme, transitions: np.ndarray | None = None
) -> np.ndarray:
    """The marginal probability of each tag of each token.

    scores (ndarray[float32]): The log-probabilities of the tags of each token; shape (tokens, tags).
    lengths (ndarray[int]): Tokens per document.
    transitions (ndarray[float32] | None): Transition scores of a CRF, see `crf`; None: all allowed transitions are
        equal.
    RETURNS (ndarray[float32]): Shape (tokens, tags); the rows add up to 1.
    """
    marginals = np.zeros(scores.shape, dtype=np.float32)
    if not len(scores):
        return marginals
    if transitions is not None:
        return expected(scores, lengths, exponentials(transitions, scheme), scheme).tags.astype(np.float32)
    around = around_spans(scores, lengths, scheme, going_on=True)
    assert around.going_on is not None
    coming = np.empty_like(around.going_on)
    _sweep(scores, cut(lengths), scheme, backwards=False, going_on=coming)
    weight = np.maximum(scores, np.log(LEAST)) + (around.before + around.after)[:, None]
    marginals[:, 0] = np.exp(weight[:, 0])
    # Incoming spans are open before the token, outgoing ones after it. In IOB2 two kinds share a column.
    for kind, edges in (("B", around.going_on), ("I", coming + around.going_on), ("L", coming), ("U", 0.0)):
        columns = scheme.columns(kind)
        marginals[:, columns] += np.exp(weight[:, columns] + edges)
    return marginals / marginals.sum(axis=1, keepdims=True)


def candidates(
    scores: np.ndarray, lengths: np.ndarray, scheme: Scheme, least: float, transitions: np.ndarray | None = None
) -> Spans:
    """Find all spans, including overlapping ones, with at least the given probability.

    At most 1 / least of them begin at the same token.

    scores (ndarray[float32]): The log-probabilities of the tags of each token; shape (tokens, tags).
    lengths (ndarray[int]): Tokens per document.
    least (float): The minimum probability, above 0.
    transitions (ndarray[float32] | None): Transition scores of a CRF.
    RETURNS (Spans): Sorted by start and end, with their probabilities.
    """
    around = around_spans(scores, lengths, scheme, True, transitions)
    bound = np.log(least)
    blocks = [
        _beginning_in(slice(at, at + AT_ONCE), scores, around, scheme, bound) for at in range(0, len(scores), AT_ONCE)
    ]
    if not blocks:
        nothing = np.zeros(0, dtype=np.int64)
        return Spans(nothing, nothing, nothing, nothing.astype(np.float32))
    start, end, label, log = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    order = np.lexsort((label, end, start))
    return Spans(start[order], end[order], label[order], np.exp(np.minimum(log[order], 0.0)).astype(np.float32))


def _beginning_in(
    tokens: slice, scores: np.ndarray, around: Around, scheme: Scheme, bound: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Starts, ends, labels and log-probabilities of the candidates that begin at the given tokens."""
    begin, inside, last, unit = (scheme.columns(kind) for kind in "BILU")
    every = slice(len(scheme.labels))
    alone = around.first(tokens, unit) + scores[tokens, unit] + around.last(tokens, unit)
    start, label = np.nonzero(alone >= bound)
    pieces = [(start + tokens.start, start + tokens.start + 1, label, alone[start, label])]
    weight = around.first(tokens, begin) + scores[tokens, begin]
    start, label = np.nonzero(weight + around.within(tokens, begin, every) >= bound)
    weight = weight[start, label]
    at = start = start + tokens.start
    tag = begin.start + label
    # Extend all open candidates by one token per iteration.
    while len(start):
        at, final, middle = at + 1, last.start + label, inside.start + label
        ended = weight + around.step(tag, final) + scores[at, final] + around.last(at, final)
        whole = ended >= bound
        pieces.append((start[whole], at[whole] + 1, label[whole], ended[whole]))
        weight = weight + around.step(tag, middle) + scores[at, middle]
        goes = weight + around.within(at, middle, label) >= bound
        start, at, label, weight, tag = start[goes], at[goes], label[goes], weight[goes], middle[goes]
    starts, ends, labels, logs = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return starts, ends, labels, logs


def _sweep(
    scores: np.ndarray, chunks: Chunks, scheme: Scheme, *, backwards: bool, going_on: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Run the recursion in one direction. Backwards, a span begins with its L and ends with its B.

    going_on (ndarray | None): Filled with the weights of open spans.
    RETURNS (tuple): For each token, the logarithm of the weight of everything read before it with no span open; and for
        each document, that of the whole.
    """
    closed_log = np.empty(len(scores))
    # The weights with an open span of each label, relative to that with no span open, whose logarithm is the scale.
    states = States.of(np.zeros((len(chunks.first), len(scheme.labels))))

    def read(todo: np.ndarray) -> None:
        _read(scores, chunks, scheme, todo, states, closed_log, backwards, going_on)

    with np.errstate(divide="ignore"):
        earlier, last = settle(chunks, states, backwards, read)
    closed_log += np.repeat(earlier, chunks.lengths)
    return closed_log, earlier[last] + states.scale[last]


def _read(
    scores: np.ndarray,
    chunks: Chunks,
    scheme: Scheme,
    todo: np.ndarray,
    states: States,
    closed_log: np.ndarray,
    backwards: bool,
    going_on: np.ndarray | None,
) -> None:
    """Read some chunks side by side, from their entered to their left states.

    closed_log (ndarray), going_on (ndarray | None): Filled for the chunks' tokens.
    """
    begin, inside, last, unit = (scheme.columns(kind) for kind in "BILU")
    if backwards:
        begin, last = last, begin
    # Longest first, so that the chunks with a token at a step are always the first ones.
    todo = todo[np.argsort(-chunks.lengths[todo], kind="stable")]
    edge, way = (chunks.last[todo], -1) if backwards else (chunks.first[todo], 1)
    opened, scale = states.entered[todo], np.zeros(len(todo))
    for step, going in enumerate(active(chunks.lengths[todo])):
        if going < len(opened):
            ended = todo[going : len(opened)]
            states.left[ended], states.scale[ended] = opened[going:], scale[going:]
            opened, scale = opened[:going], scale[:going]
        token = edge[:going] + way * step
        closed_log[token] = scale
        if going_on is not None:
            going_on[token] = np.log(opened)
        chance = chances(scores[token])
        closed = chance[:, 0] + chance[:, unit].sum(axis=1) + np.einsum("ij,ij->i", opened, chance[:, last])
        opened = (chance[:, begin] + opened * chance[:, inside]) / closed[:, None]
        scale = scale + np.log(closed)
    ended = todo[: len(opened)]
    states.left[ended], states.scale[ended] = opened, scale
