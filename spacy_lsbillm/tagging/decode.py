"""The most probable well-formed tag sequence of each document: Viterbi under the constraints of a scheme.

What may follow a tag depends only on whether a span is open, and on its label. So a step takes time linear in the
number of tags, not quadratic: from the best path without an open span, and the best one to an open span of each label.
IOB2 is treated as BILUO in which U has the score of B and L that of I: their sequences correspond one to one. Documents
whose best single tags are already well-formed, usually most of them, need no search: no sequence is better.

The search takes no array operations per token, see `chunks`: the best paths to all states at the end of a chunk usually
have the same beginning.
"""

import numpy as np

from .chunks import Chunks, States, active, cut, settle
from .crf import NO_PATH, best_path
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
        closing, goes_on = _search(scores, cut(lengths).of_documents(broken), scheme)
        path = tags.tolist()
        _go_back(closing.tolist(), goes_on, starts[broken].tolist(), lengths[broken].tolist(), scheme, path)
        return np.array(path, dtype=np.int64)
    return tags


def _search(scores: np.ndarray, chunks: Chunks, scheme: Scheme) -> tuple[np.ndarray, np.ndarray]:
    """Find the best paths to all states.

    RETURNS (tuple[ndarray[int64], ndarray[bool]]): For each token of the chunks, the tag with which the best path ends
        that has no open span after the token, shape (tokens,); and for each label, whether the best path with an open
        span of that label continues one that was open before the token, shape (tokens, labels).
    """
    begin, inside, last, unit = (scheme.columns(kind) for kind in "BILU")
    # Without an open span before the token.
    alone = scores[:, unit].argmax(axis=1) + unit.start
    of_alone = scores[np.arange(len(scores)), alone]
    outside = scores[:, 0] >= of_alone
    alone[outside], of_alone[outside] = 0, scores[outside, 0]
    closing, goes_on = alone.copy(), np.empty((len(scores), len(scheme.labels)), dtype=bool)
    # The best sums with an open span of each label, minus the best sum without an open span.
    states = States.of(np.full((len(chunks.first), len(scheme.labels)), NO_PATH))
    states.scale[:] = 0.0

    def read(todo: np.ndarray) -> None:
        # Longest first, so that the chunks with a token at a step are always the first ones.
        todo = todo[np.argsort(-chunks.lengths[todo], kind="stable")]
        first, rows, opened = chunks.first[todo], np.arange(len(todo)), states.entered[todo]
        for step, going in enumerate(active(chunks.lengths[todo])):
            if going < len(opened):
                states.left[todo[going : len(opened)]] = opened[going:]
                opened = opened[:going]
            token = first[:going] + step
            here = scores[token]
            ended = opened + here[:, last]
            label = ended.argmax(axis=1)
            of_label = ended[rows[:going], label]
            closing[token] = np.where(of_label > of_alone[token], last.start + label, alone[token])
            begun, continued = here[:, begin], opened + here[:, inside]
            goes_on[token] = continued > begun
            opened = np.maximum(begun, continued) - np.maximum(of_label, of_alone[token])[:, None]
        states.left[todo[: len(opened)]] = opened

    settle(chunks, states, False, read)
    return closing, goes_on


def _go_back(
    closing: list[int], goes_on: np.ndarray, starts: list[int], lengths: list[int], scheme: Scheme, tags: list[int]
) -> None:
    """Write the tags of the best paths of some documents to `tags`.

    closing (list[int]), goes_on (ndarray[bool]): From `_search`.
    starts (list[int]), lengths (list[int]): The documents' first tokens, and their numbers of tokens.
    """
    begin, inside, last = (scheme.columns(kind).start for kind in "BIL")
    behind_last = last + len(scheme.labels)
    # Each tag depends on the one after it. A plain step per token takes a fraction of the time of numpy's calls.
    for start, length in zip(starts, lengths, strict=True):
        # The label of the span that is open after the token.
        label = None
        for token in range(start + length - 1, start - 1, -1):
            if label is None:
                tag = tags[token] = closing[token]
                if last <= tag < behind_last:
                    label = tag - last
            elif goes_on[token, label]:
                tags[token] = inside + label
            else:
                tags[token] = begin + label
                label = None
