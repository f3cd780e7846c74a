"""A linear-chain CRF (Lafferty et al., 2001) over the tag sequences that a scheme allows, with learned scores of
transitions in addition to the scores of tags.

The weight of a sequence is the exponential of the sum of its tag and transition scores; an ill-formed one has weight 0.
Transitions are an array of shape (tags + 1, tags + 1), from row to column. The last row is the start of a document, the
last column its end. The values of transitions that the scheme does not allow are ignored.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .chunks import Chunks, States, active, cut, settle
from .scheme import Scheme

IMPOSSIBLE = np.float32(-np.inf)
# Probabilities are clipped to this minimum (1.8e-35), so that every document has a sequence.
LEAST = np.float32(-80.0)
# The maximum number of entries in the table that is searched at once for the best tag before each tag.
AT_ONCE = 200_000


def allowed(scheme: Scheme) -> np.ndarray:
    """Which tag may follow which.

    RETURNS (ndarray[bool]): Shape (tags + 1, tags + 1).
    """
    return _ending(scheme) | _going_on(scheme)


def _going_on(scheme: Scheme) -> np.ndarray:
    """The transitions within a span."""
    found = np.zeros((scheme.n_tags + 1,) * 2, dtype=bool)
    labels = np.arange(len(scheme.labels))
    for kind in "BI":
        for after in set(scheme.kinds) & set("IL"):
            found[scheme.columns(kind).start + labels, scheme.columns(after).start + labels] = True
    return found


def _ending(scheme: Scheme) -> np.ndarray:
    """The transitions that are not within a span: from a state in which no span is open, or one may end."""
    kinds = np.array(["O", *np.repeat(list(scheme.kinds), len(scheme.labels)), "end"])
    closed = np.ones(len(kinds), dtype=bool) if scheme.name == "iob2" else ~np.isin(kinds, ["B", "I"])
    found = closed[:, None] & ~np.isin(kinds, ["I", "L"])
    # A document has at least one token.
    found[-1, -1] = False
    return found


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


def read(scores: np.ndarray, chunks: Chunks, transitions: np.ndarray, *, backwards: bool) -> Read:
    """Run the recursion in one direction.

    scores (ndarray): Scores of the tags of each token; shape (tokens, tags).
    transitions (ndarray[float64]): The exponentials of transitions, 0 for those that are not allowed.
    """
    steps = transitions.T if backwards else transitions
    n_states = len(steps)
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
        total = np.log(states.left[last] @ steps[:, -1]) + earlier[last] + states.scale[last]
    return Read(weights, scale, total)


def _read(
    scores: np.ndarray,
    chunks: Chunks,
    steps: np.ndarray,
    todo: np.ndarray,
    states: States,
    weights: np.ndarray,
    scale: np.ndarray,
    backwards: bool,
) -> None:
    """Read some chunks side by side, from their entered to their left states.

    steps (ndarray[float64]): Weights of the transitions from the token read before to the next one.
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
        following = np.zeros_like(now)
        following[:, :-1] = (now @ steps[:, :-1]) * np.exp(np.maximum(scores[token], LEAST))
        both = following.sum(axis=1)
        now, divided = following / both[:, None], divided + np.log(both)
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


def expected(scores: np.ndarray, lengths: np.ndarray, transitions: np.ndarray) -> Expected:
    """Compute expected values by forward-backward.

    transitions (ndarray[float64]): What `exponentials` returned.
    """
    chunks = cut(lengths)
    ahead = read(scores, chunks, transitions, backwards=False)
    behind = read(scores, chunks, transitions, backwards=True)
    up_to = (ahead.weights @ transitions)[:, :-1] * np.exp(np.maximum(scores, LEAST))
    # The scale of each row cancels out, as the probabilities of a token add up to 1.
    tags = up_to * (behind.weights @ transitions.T)[:, :-1]
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
    order = np.argsort(-lengths, kind="stable")
    starts = (np.cumsum(lengths) - lengths)[order]
    lengths = lengths[order]
    search = _Search(np.where(allowed(scheme), transitions, IMPOSSIBLE).astype(np.float32), scheme)
    goes_on = active(lengths)
    # The best sums up to each token that end in each tag, for all documents that have the token.
    best = [scores[starts] + search.transitions[-1, :-1]]
    for step in range(1, len(goes_on)):
        going = goes_on[step]
        best.append(search.step(best[-1][:going]) + scores[starts[:going] + step])
    tags = np.empty(len(scores), dtype=np.int64)
    current = np.empty(len(lengths), dtype=np.int64)
    after = 0
    for step in range(len(goes_on) - 1, -1, -1):
        going = goes_on[step]
        # Documents whose last token this is, and the others.
        current[after:going] = (best[step][after:] + search.transitions[:-1, -1]).argmax(axis=1)
        current[:after] = (best[step][:after] + search.into[current[:after]]).argmax(axis=1)
        tags[starts[:going] + step] = current[:going]
        after = going
    return tags


class _Search:
    """The best sums of each step. Inside a span only B and I are possible before a tag, elsewhere all closed states.

    Which tag came before is found on the way back, for one tag per token.
    """

    def __init__(self, transitions: np.ndarray, scheme: Scheme) -> None:
        self.transitions = transitions
        self.into = np.ascontiguousarray(transitions[:-1, :-1].T)
        going_on, free = _going_on(scheme)[:-1, :-1], _ending(scheme)[:-1, :-1]
        self.closed, self.free = np.flatnonzero(free.any(axis=1)), np.flatnonzero(free.any(axis=0))
        self.inside = np.flatnonzero(going_on.any(axis=0))
        # For each tag inside a span, the two possible tags before it.
        self.before = np.stack([np.flatnonzero(going_on[:, tag]) for tag in self.inside], axis=1)
        self.between = transitions[np.ix_(self.closed, self.free)]

    def step(self, best: np.ndarray) -> np.ndarray:
        """From the best sums that end in each tag to those of a transition to each tag; shape (documents, tags)."""
        found = np.empty_like(best)
        for rows in self._blocks(len(best)):
            found[rows, self.free] = (best[rows, self.closed, None] + self.between).max(axis=1)
        found[:, self.inside] = (best[:, self.before] + self.transitions[self.before, self.inside]).max(axis=1)
        return found

    def _blocks(self, documents: int) -> Iterator[slice]:
        size = max(1, AT_ONCE // max(1, self.between.size))
        return (slice(at, at + size) for at in range(0, documents, size))
