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
from .crf import LEAST, expected, exponentials, read, ways_out
from .scheme import Scheme, Spans

# The number of tokens at which starts of spans are searched at once.
AT_ONCE = 65536
# Added to the probability of each tag, so that every document has a sequence. To add it takes a third of the time of
# clipping.
LEAST_CHANCE = np.exp(LEAST)


@dataclass(frozen=True)
class Around:
    """The weights of everything before and after a span, as logarithms. The probability of a span is the exponential of
    the sum of the weight before its first token, the scores of its tags, and the weight after its last token.

    before (ndarray[float64]): For each token, the weight of everything before it if no span is open there; shape
        (tokens,).
    after (ndarray[float64]): The weight of everything after it if no span is open there, relative to the weight of all
        sequences; shape (tokens,).
    going_on (ndarray[float32] | None): The weight of everything after it if a span with a label continues there,
        relative to `after`; shape (tokens, labels), or with transitions (tokens, tags).
    begins (ndarray[float32] | None), ends (ndarray[float32] | None): With transitions, corrections of `before` and
        `after` that depend on the token's tag; shape (tokens, tags).
    transitions (ndarray[float32] | None): Added to the scores of the tags within a span.
    """

    before: np.ndarray
    after: np.ndarray
    going_on: np.ndarray | None = None
    begins: np.ndarray | None = None
    ends: np.ndarray | None = None
    transitions: np.ndarray | None = None

    def spans(self, tags: np.ndarray, scores: np.ndarray, scheme: Scheme) -> Spans:
        """The spans of well-formed tags, with their probabilities.

        tags (ndarray[int]): The tags of all tokens, shape (tokens,).
        scores (ndarray[float32]): The scores that `around_spans` received.
        """
        tokens = np.arange(len(tags))
        chosen, before, after = scores[tokens, tags], self.before, self.after
        if self.begins is not None and self.ends is not None and self.transitions is not None:
            before, after = before + self.begins[tokens, tags], after + self.ends[tokens, tags]
            chosen = chosen.astype(np.float64)
            # Transitions into the first tag of a span are part of the weight before it.
            chosen[1:] += np.where(scheme.continues(tags[1:]), self.transitions[tags[:-1], tags[1:]], 0.0)
        return scheme.spans(tags, chosen, before, after)

    def first(self, tokens: slice, tags: slice) -> np.ndarray:
        """The weight before spans that begin with the given tags."""
        before = self.before[tokens, None]
        return before if self.begins is None else before + self.begins[tokens, tags]

    def last(self, tokens: np.ndarray | slice, tags: np.ndarray | slice) -> np.ndarray:
        """The weight after spans that end with the given tags."""
        after = self.after[tokens, None] if isinstance(tokens, slice) else self.after[tokens]
        return after if self.ends is None else after + self.ends[tokens, tags]

    def within(self, tokens: np.ndarray | slice, tags: np.ndarray | slice, labels: np.ndarray | slice) -> np.ndarray:
        """The weight after tokens within spans.

        tags, labels: The same labels, with and without the kind of the tag.
        """
        assert self.going_on is not None
        after = self.after[tokens, None] if isinstance(tokens, slice) else self.after[tokens]
        return after + self.going_on[tokens, labels if self.ends is None else tags]

    def step(self, tags: np.ndarray, following: np.ndarray) -> np.ndarray | float:
        """The transition scores between tags."""
        return 0.0 if self.transitions is None else self.transitions[tags, following]


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
    chunks = cut(lengths)
    if transitions is not None:
        return _around_with(transitions, scores, chunks, scheme, going_on)
    if not len(scores):
        return Around(np.zeros(0), np.zeros(0), np.zeros((0, len(scheme.labels)), dtype=np.float32))
    ahead, total = _sweep(scores, chunks, scheme, backwards=False)
    goes = np.empty((len(scores), len(scheme.labels)), dtype=np.float32) if going_on else None
    behind, _ = _sweep(scores, chunks, scheme, backwards=True, going_on=goes)
    return Around(ahead, behind - np.repeat(total[chunks.document], chunks.lengths), goes)


def _around_with(transitions: np.ndarray, scores: np.ndarray, chunks: Chunks, scheme: Scheme, going_on: bool) -> Around:
    goes_on, ends = ways_out(transitions, scheme)
    if not len(scores):
        nothing = np.zeros((0, scheme.n_tags), dtype=np.float32)
        return Around(np.zeros(0), np.zeros(0), nothing, nothing, nothing, transitions)

    def by_tag(weights: np.ndarray, steps: np.ndarray) -> np.ndarray:
        return np.log(weights @ steps)[:, :-1].astype(np.float32)

    with np.errstate(divide="ignore"):
        ahead = read(scores, chunks, goes_on + ends, backwards=False)
        before, total = ahead.scale, ahead.total
        begins = by_tag(ahead.weights, ends)
        del ahead
        behind = read(scores, chunks, goes_on + ends, backwards=True)
        after = behind.scale - np.repeat(total[chunks.document], chunks.lengths)
        goes = by_tag(behind.weights, goes_on.T) if going_on else None
        return Around(before, after, goes, begins, by_tag(behind.weights, ends.T), transitions)


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
    found = np.zeros(scores.shape, dtype=np.float32)
    if not len(scores):
        return found
    if transitions is not None:
        return expected(scores, lengths, exponentials(transitions, scheme)).tags.astype(np.float32)
    around = around_spans(scores, lengths, scheme, going_on=True)
    assert around.going_on is not None
    coming = np.empty_like(around.going_on)
    _sweep(scores, cut(lengths), scheme, backwards=False, going_on=coming)
    weight = np.maximum(scores, LEAST) + (around.before + around.after)[:, None]
    found[:, 0] = np.exp(weight[:, 0])
    # Incoming spans are open before the token, outgoing ones after it. In IOB2 two kinds share a column.
    for kind, edges in (("B", around.going_on), ("I", coming + around.going_on), ("L", coming), ("U", 0.0)):
        columns = scheme.columns(kind)
        found[:, columns] += np.exp(weight[:, columns] + edges)
    return found / found.sum(axis=1, keepdims=True)


def candidates(
    scores: np.ndarray, lengths: np.ndarray, scheme: Scheme, least: float, transitions: np.ndarray | None = None
) -> Spans:
    """Find all spans, including overlapping ones, with at least the given probability. At most 1 / least of them begin
    at the same token.

    scores (ndarray[float32]): The log-probabilities of the tags of each token; shape (tokens, tags).
    lengths (ndarray[int]): Tokens per document.
    least (float): The minimum probability, above 0.
    transitions (ndarray[float32] | None): Transition scores of a CRF.
    RETURNS (Spans): Sorted by start and end, with their probabilities.
    """
    around = around_spans(scores, lengths, scheme, True, transitions)
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


def _beginning_in(
    tokens: slice, scores: np.ndarray, around: Around, scheme: Scheme, bound: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Starts, ends, labels and log-probabilities of the candidates that begin at the given tokens."""
    begin, inside, last, unit = (scheme.columns(kind) for kind in "BILU")
    every = slice(len(scheme.labels))
    alone = around.first(tokens, unit) + scores[tokens, unit] + around.last(tokens, unit)
    start, label = np.nonzero(alone >= bound)
    found = [(start + tokens.start, start + tokens.start + 1, label, alone[start, label])]
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
        found.append((start[whole], at[whole] + 1, label[whole], ended[whole]))
        weight = weight + around.step(tag, middle) + scores[at, middle]
        goes = weight + around.within(at, middle, label) >= bound
        start, at, label, weight, tag = start[goes], at[goes], label[goes], weight[goes], middle[goes]
    starts, ends, labels, logs = (np.concatenate(parts) for parts in zip(*found, strict=True))
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
        chance = scores[token]
        chance = np.exp(chance, out=chance)
        chance += LEAST_CHANCE
        closed = chance[:, 0] + chance[:, unit].sum(axis=1) + np.einsum("ij,ij->i", opened, chance[:, last])
        opened = (chance[:, begin] + opened * chance[:, inside]) / closed[:, None]
        scale = scale + np.log(closed)
    ended = todo[: len(opened)]
    states.left[ended], states.scale[ended] = opened, scale
