"""The most probable well-formed tag sequence of each document: Viterbi under the constraints of a scheme.

What may follow a tag depends only on whether a span is open, and on its label. So a step takes time linear in the
number of tags, not quadratic: the best closed state is found once, and an open span has two predecessors. Documents
whose best single tags are already well-formed, usually most of them, need no search: no sequence is better.
"""

from dataclasses import dataclass

import numpy as np

from .crf import IMPOSSIBLE, best_path
from .scheme import Scheme


def best_tags(
    scores: np.ndarray, lengths: np.ndarray, scheme: Scheme, transitions: np.ndarray | None = None
) -> np.ndarray:
    """Find the well-formed tags of each document with the highest sum of scores.

    scores (ndarray[float32]): Scores of the tags of each token, such as log-probabilities; shape (tokens, tags).
    lengths (ndarray[int]): Tokens per document.
    transitions (ndarray[float32] | None): Transition scores of a CRF, see `crf`; None: all allowed transitions are
        equal.
    RETURNS (ndarray[int64]): Shape (tokens,).
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return np.zeros(0, dtype=np.int64)
    if transitions is not None:
        return best_path(scores, lengths, scheme, transitions)
    tags = scores.argmax(axis=1)
    starts = np.cumsum(lengths) - lengths
    first = np.zeros(len(tags), dtype=bool)
    first[starts] = True
    broken = ~np.logical_and.reduceat(scheme.well_formed(tags, first), starts)
    if broken.any():
        # Longest first, so that the documents with a token at a step are always the first ones.
        chosen = np.flatnonzero(broken)
        chosen = chosen[np.argsort(-lengths[chosen], kind="stable")]
        _search(scores, starts[chosen], lengths[chosen], scheme, tags)
    return tags


@dataclass
class Trellis:
    """The back pointers of a search, one entry per step.

    before (list[ndarray]): The best tag before one that starts or is outside of a span, shape (documents,).
    inside (list[ndarray]): For each label, whether the best tag before a continuing one was I rather than B; shape
        (documents, labels).
    """

    before: list[np.ndarray]
    inside: list[np.ndarray]


def _search(scores: np.ndarray, starts: np.ndarray, lengths: np.ndarray, scheme: Scheme, tags: np.ndarray) -> None:
    """Viterbi over all documents at once, which are sorted by falling length. The result is written to `tags`."""
    kinds = {kind: scheme.columns(kind) for kind in scheme.kinds}
    n_labels = len(scheme.labels)
    # In IOB2 a span may end at any token; in BILUO only at its last one.
    free_columns = np.arange(scheme.n_tags) if scheme.name == "iob2" else _closed(scheme)
    steps = int(lengths[0])
    active = np.searchsorted(-lengths, -np.arange(steps), side="left")
    trellis = Trellis([], [])
    best = scores[starts].copy()
    for kind in scheme.kinds:
        if kind in "IL":
            best[:, kinds[kind]] = IMPOSSIBLE
    final = np.empty((len(lengths), scheme.n_tags), dtype=best.dtype)
    for step in range(1, steps):
        going = int(active[step])
        final[going : len(best)] = best[going:]
        best = best[:going]
        here = scores[starts[:going] + step]
        closed = best if len(free_columns) == scheme.n_tags else best[:, free_columns]
        before = closed.argmax(axis=1)
        top = closed[np.arange(going), before][:, None]
        begun, inside = best[:, kinds["B"]], best[:, kinds["I"]]
        from_inside = inside > begun
        open_before = np.where(from_inside, inside, begun)
        best = here + top
        for kind in scheme.kinds:
            if kind in "IL":
                best[:, kinds[kind]] = here[:, kinds[kind]] + open_before
        trellis.before.append(free_columns[before])
        trellis.inside.append(from_inside)
    final[: len(best)] = best
    rows = np.arange(len(lengths))
    ends = final[:, free_columns].argmax(axis=1)
    current = free_columns[ends]
    continuing = np.zeros(scheme.n_tags, dtype=bool)
    for kind in scheme.kinds:
        if kind in "IL":
            continuing[kinds[kind]] = True
    for step in range(steps - 1, 0, -1):
        going = int(active[step])
        tag = current[:going]
        tags[starts[:going] + step] = tag
        label = (tag - 1) % n_labels
        opened = np.where(
            trellis.inside[step - 1][rows[:going], label], kinds["I"].start + label, kinds["B"].start + label
        )
        current[:going] = np.where(continuing[tag], opened, trellis.before[step - 1])
    tags[starts] = current


def _closed(scheme: Scheme) -> np.ndarray:
    """The tags after which no span is open."""
    return np.concatenate([[0], *(np.arange(scheme.n_tags)[scheme.columns(kind)] for kind in "LU")])
