"""A linear-chain CRF (Lafferty et al., 2001) over the tag sequences that a scheme allows.

It has learned scores of transitions in addition to the scores of tags.

The weight of a sequence is the exponential of the sum of its tag and transition scores; an ill-formed one has weight 0.
Transitions are an array of shape (tags + 1, tags + 1), from row to column. The last row is the start of a document, the
last column its end. The values of transitions that the scheme does not allow are ignored.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .chunks import Chunks, States, active, cut, settle
from .scheme import Scheme

IMPOSSIBLE = np.float32(-np.inf)
# The sum of a path that does not exist: finite, as differences of infinite sums are undefined.
NO_PATH = -1e30
# Added to the probability of each tag (1.8e-35), so that every document has a sequence.
LEAST = np.exp(np.float32(-80.0))
# The maximum number of entries in the table that is searched at once for the best tag before each tag.
AT_ONCE = 500_000


def allowed(scheme: Scheme) -> np.ndarray:
    """Which tag may follow which.

    RETURNS (ndarray[bool]): Shape (tags + 1, tags + 1).
    """
    return _ending(scheme) | _going_on(scheme)


@lru_cache(maxsize=8)
def _going_on(scheme: Scheme) -> np.ndarray:
    """The transitions within a span. The array is shared."""
    allowed = np.zeros((scheme.n_tags + 1,) * 2, dtype=bool)
    labels = np.arange(len(scheme.labels))
    for kind in "BI":
        for after in set(scheme.kinds) & set("IL"):
            allowed[scheme.columns(kind).start + labels, scheme.columns(after).start + labels] = True
    return allowed


@lru_cache(maxsize=8)
def _ending(scheme: Scheme) -> np.ndarray:
    """The transitions that are not within a span: from a state in which no span is open, or one may end.

    The array is shared.
    """
    kinds = np.array(["O", *np.repeat(list(scheme.kinds), len(scheme.labels)), "end"])
    closed = np.ones(len(kinds), dtype=bool) if scheme.name == "iob2" else ~np.isin(kinds, ["B", "I"])
    allowed = closed[:, None] & ~np.isin(kinds, ["I", "L"])
    # A document has at least one token.
    allowed[-1, -1] = False
    return allowed


def _within(scheme: Scheme) -> list[tuple[slice, slice]]:
    """The tags before and after a transition within a span, label by label."""
    return [
        (scheme.columns(kind), scheme.columns(after)) for kind in "BI" for after in scheme.kinds if after in ("I", "L")
    ]


def chances(scores: np.ndarray) -> np.ndarray:
    """The exponentials of scores, at least `LEAST`. The scores are overwritten."""
    np.exp(scores, out=scores)
    # To add it takes a third of the time of clipping.
    scores += LEAST
    return scores


class Steps:
    """The product with the weights of transitions. Within a span, few of them are not 0."""

    def __init__(self, transitions: np.ndarray, scheme: Scheme, backwards: bool = False) -> None:
        """Prepare the product with these weights.

        transitions (ndarray[float64]): What `exponentials` returned.
        backwards (bool): From the tag of the column to the tag of the row.
        """
        ends, within = transitions * _ending(scheme), _within(scheme)
        if backwards:
            ends, within = ends.T, [(after, before) for before, after in within]
        self._from = np.flatnonzero(ends.any(axis=1))
        self._ends = np.ascontiguousarray(ends[self._from])
        steps = transitions.T if backwards else transitions
        self._within = [(before, after, steps[before, after].diagonal()) for before, after in within]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Multiply.

        weights (ndarray[float64]): The weights of the tags read before, shape (tokens, tags + 1).
        """
        product = weights.take(self._from, axis=1) @ self._ends
        for before, after, steps in self._within:
            product[:, after] += weights[:, before] * steps
        return product


@dataclass(frozen=True)
class Read:
    """The result of reading documents in one direction.

    weights (ndarray[float64]): For each token, the normalised weights of the tags of the token read before it, with the
        start of the document in the last column; a row adds up to 1; shape (tokens, tags + 1).
    scale (ndarray[float64]): The logarithm of the normalisation, shape (tokens,).
    total (ndarray[float64]): For each non-empty document, the logarithm of the weight of all its sequences.
    """

    weights: np.ndarray
    scale: np.ndarray
    total: np.ndarray


def read(scores: np.ndarray, chunks: Chunks, transitions: np.ndarray, scheme: Scheme, *, backwards: bool) -> Read:
    """Run the recursion in one direction.

    scores (ndarray): Scores of the tags of each token; shape (tokens, tags).
    transitions (ndarray[float64]): What `exponentials` returned.
    """
    steps, to_end = Steps(transitions, scheme, backwards), transitions[-1] if backwards else transitions[:, -1]
    n_states = len(transitions)
    entered = np.zeros((len(chunks.first), n_states))
    _, follows = chunks.order(backwards)
    # The guess for chunks in the middle of a document: outside of spans.
    entered[:, 0] = 1.0
    begins = np.flatnonzero(~follows[::-1] if backwards else ~follows)
    entered[begins] = np.eye(n_states)[-1]
    states = States.of(entered)
    weights, scale = np.empty((len(scores), n_states)), np.empty(len(scores))

    def read_some(todo: np.ndarray) -> None:
        _read(scores, chunks, steps, todo, states, weights, scale, backwards)

    with np.errstate(divide="ignore"):
        earlier, last = settle(chunks, states, backwards, read_some)
        scale += np.repeat(earlier, chunks.lengths)
        total = np.log(states.left[last] @ to_end) + earlier[last] + states.scale[last]
    return Read(weights, scale, total)


def _read(
    scores: np.ndarray,
    chunks: Chunks,
    steps: Steps,
    todo: np.ndarray,
    states: States,
    weights: np.ndarray,
    scale: np.ndarray,
    backwards: bool,
) -> None:
    """Read some chunks side by side, from their entered to their left states.

    steps (Steps): From the token read before to the next one.
    weights (ndarray), scale (ndarray): Filled for the chunks' tokens.
    """
    # Longest first, so that the chunks with a token at a step are always the first ones.
    todo = todo[np.argsort(-chunks.lengths[todo], kind="stable")]
    edge, way = (chunks.last[todo], -1) if backwards else (chunks.first[todo], 1)
    now = states.entered[todo]
    divided = np.zeros(len(todo))
    for step, going in enumerate(active(chunks.lengths[todo])):
        if going < len(now):
            ended = todo[going : len(now)]
            states.left[ended], states.scale[ended] = now[going:], divided[going:]
            now, divided = now[:going], divided[:going]
        token = edge[:going] + way * step
        weights[token], scale[token] = now, divided
        now = steps(now)
        now[:, :-1] *= chances(scores[token])
        now[:, -1] = 0.0
        both = now.sum(axis=1)
        now /= both[:, None]
        divided = divided + np.log(both)
    ended = todo[: len(now)]
    states.left[ended], states.scale[ended] = now, divided


def exponentials(transitions: np.ndarray, scheme: Scheme) -> np.ndarray:
    """The exponentials of allowed transitions, 0 for the others; float64."""
    return np.where(allowed(scheme), np.exp(transitions.astype(np.float64)), 0.0)


def ways_out(transitions: np.ndarray, scheme: Scheme) -> tuple[np.ndarray, np.ndarray]:
    """The allowed transitions in two parts: those within a span, and all others."""
    weights = exponentials(transitions, scheme)
    return weights * _going_on(scheme), weights * _ending(scheme)


@dataclass(frozen=True)
class Expected:
    """Expected values over all sequences, weighted by their probability.

    total (ndarray[float64]): For each non-empty document, the logarithm of the weight of all its sequences.
    tags (ndarray[float64]): The probability of each tag at each token; shape (tokens, tags).
    transitions (ndarray[float64]): The expected number of each transition in all documents; shape (tags + 1, tags + 1).
    """

    total: np.ndarray
    tags: np.ndarray
    transitions: np.ndarray


def expected(scores: np.ndarray, lengths: np.ndarray, transitions: np.ndarray, scheme: Scheme) -> Expected:
    """Compute expected values by forward-backward.

    transitions (ndarray[float64]): What `exponentials` returned.
    """
    chunks = cut(lengths)
    ahead = read(scores, chunks, transitions, scheme, backwards=False)
    behind = read(scores, chunks, transitions, scheme, backwards=True)
    up_to = Steps(transitions, scheme)(ahead.weights)[:, :-1] * chances(scores.copy())
    # The scale of each row cancels out, as the probabilities of a token add up to 1.
    tags = up_to * Steps(transitions, scheme, backwards=True)(behind.weights)[:, :-1]
    sums = tags.sum(axis=1, keepdims=True)
    tags /= sums
    counts = np.empty_like(transitions)
    counts[:-1] = transitions[:-1] * ((up_to / sums).T @ behind.weights)
    starts = chunks.first[np.append(True, np.diff(chunks.document) > 0)]
    counts[-1] = np.append(tags[starts].sum(axis=0), 0.0)
    return Expected(ahead.total, tags, counts)


def best_path(scores: np.ndarray, lengths: np.ndarray, scheme: Scheme, transitions: np.ndarray) -> np.ndarray:
    """Find the well-formed tags of each document with the highest sum of scores, by Viterbi.

    lengths (ndarray[int64]): Tokens per document, none of them 0.
    RETURNS (ndarray[int64]): Shape (tokens,).
    """
    chunks = cut(lengths)
    search = _Search(np.where(allowed(scheme), transitions, IMPOSSIBLE).astype(np.float32), scheme)
    sums = _best_sums(scores, chunks, search)
    tags = np.empty(len(scores), dtype=np.int64)
    # The tag after each chunk; the guess in the middle of a document is O.
    states = States.of(np.zeros((len(chunks.first), 1)))
    states.entered[np.append(chunks.document[1:] != chunks.document[:-1], True)] = scheme.n_tags
    states.scale[:] = 0.0

    def read_back(todo: np.ndarray) -> None:
        todo = todo[np.argsort(-chunks.lengths[todo], kind="stable")]
        after = states.entered[todo, 0].astype(np.int64)
        for step, going in enumerate(active(chunks.lengths[todo])):
            states.left[todo[going : len(after)], 0] = after[going:]
            token = chunks.last[todo[:going]] - step
            after = (sums[token] + search.into[after[:going]]).argmax(axis=1)
            tags[token] = after
        states.left[todo[: len(after)], 0] = after

    settle(chunks, states, True, read_back)
    return tags


def _best_sums(scores: np.ndarray, chunks: Chunks, search: "_Search") -> np.ndarray:
    """The best sum of a path up to each token that ends in each tag, shape (tokens, tags).

    A number is subtracted for each chunk.
    """
    sums = np.empty_like(scores)
    # The guess for chunks in the middle of a document: after O.
    states = States.of(np.full((len(chunks.first), scores.shape[1] + 1), NO_PATH))
    begins = np.append(True, chunks.document[1:] != chunks.document[:-1])
    states.entered[begins, -1] = states.entered[~begins, 0] = 0.0
    states.scale[:] = 0.0

    def leave(ended: np.ndarray, now: np.ndarray) -> None:
        states.left[ended] = now - now.max(axis=1, keepdims=True)

    def read(todo: np.ndarray) -> None:
        todo = todo[np.argsort(-chunks.lengths[todo], kind="stable")]
        now = states.entered[todo]
        for step, going in enumerate(active(chunks.lengths[todo])):
            if going < len(now):
                leave(todo[going : len(now)], now[going:])
            token = chunks.first[todo[:going]] + step
            now = search.step(now[:going])
            now[:, :-1] += scores[token]
            sums[token] = now[:, :-1]
        leave(todo[: len(now)], now)

    settle(chunks, states, False, read)
    return sums


class _Search:
    """The best sums of each step. Within a span only B and I are possible before a tag, elsewhere all closed states.

    Which tag came before is found on the way back, for one tag per token: `into` has the scores of transitions to each
    tag, and to the end of the document.
    """

    def __init__(self, transitions: np.ndarray, scheme: Scheme) -> None:
        self.into = np.ascontiguousarray(transitions[:-1].T)
        ending = _ending(scheme)[:, :-1]
        self.closed, self.free = np.flatnonzero(ending.any(axis=1)), np.flatnonzero(ending.any(axis=0))
        self.between = transitions[np.ix_(self.closed, self.free)].astype(np.float64)
        # A tag whose sum is lower than the best one by more than that cannot be the best before any tag.
        self.spread = float(self.between.max() - self.between.min())
        self.within = [
            (before, after, transitions[before, after].diagonal().astype(np.float64))
            for before, after in _within(scheme)
        ]

    def step(self, best: np.ndarray) -> np.ndarray:
        """The best sums of a transition to each tag, shape (documents, tags + 1).

        They are computed from those that end in each tag, or at the start of the document.
        """
        best_sums = np.full_like(best, NO_PATH)
        closed = best.take(self.closed, axis=1)
        # Also true for NaN.
        possible = ~(closed < closed.max(axis=1, keepdims=True) - self.spread)
        size = max(1, AT_ONCE // (int(possible.sum(axis=1).max()) * len(self.free)))
        for at in range(0, len(best), size):
            rows = slice(at, at + size)
            document, number = np.divmod(np.flatnonzero(possible[rows]), len(self.closed))
            sums = closed[rows][document, number][:, None] + self.between[number]
            best_sums[rows, self.free] = np.maximum.reduceat(sums, np.flatnonzero(np.diff(document, prepend=-1)))
        for before, after, steps in self.within:
            np.maximum(best_sums[:, after], best[:, before] + steps, out=best_sums[:, after])
        return best_sums
