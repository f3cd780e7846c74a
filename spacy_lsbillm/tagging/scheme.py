"""Tagging schemes: spans of tokens encoded as one tag per token.

A tag consists of a kind and a label: B (begin), I (inside), L (last), U (unit), and O (outside, without a label). IOB2
uses B, I and O (Ratnaparkhi, 1998; Tjong Kim Sang and Veenstra, 1999), BILUO all five (Ratinov and Roth, 2009).

Tags are numbered by kind: O is 0, then come all labels with the first kind, all with the second, and so on. Arrays of
tag scores have that many columns.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..values import check_choice

# The kinds of tags with a label, in the order of their numbers.
SCHEMES = {"iob2": "BI", "biluo": "BILU"}
# The kind that a scheme uses in place of one that it lacks.
INSTEAD = {"L": "I", "U": "B"}
OUTSIDE = "O"
MISSING = -1


@dataclass(frozen=True)
class Spans:
    """Spans over tokens that are numbered through all documents: four arrays of the same length, in order.

    start (int64), end (int64): The first token, and the one after the last.
    label (int64): Index of the label.
    score (float32): The probability of the span, between 0 and 1.
    """

    start: np.ndarray
    end: np.ndarray
    label: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def where(self, chosen: np.ndarray) -> "Spans":
        """A selection of the spans.

        chosen (ndarray[bool]): True for spans to keep.
        """
        return Spans(self.start[chosen], self.end[chosen], self.label[chosen], self.score[chosen])


@dataclass(frozen=True)
class Scheme:
    """A tagging scheme over a set of labels.

    name (str): "iob2" or "biluo".
    labels (tuple[str, ...]): Labels in the order of their numbers.
    RAISES (SettingError): The name is unknown.
    """

    name: str
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        check_scheme(self.name)

    @property
    def kinds(self) -> str:
        """The letters of the kinds with a label."""
        return SCHEMES[self.name]

    @property
    def n_tags(self) -> int:
        """The number of tags, including O."""
        return 1 + len(self.kinds) * len(self.labels)

    @property
    def tags(self) -> list[str]:
        """All tags by number, such as "O" and "B-city"."""
        return [OUTSIDE, *(f"{kind}-{label}" for kind in self.kinds for label in self.labels)]

    def columns(self, kind: str) -> slice:
        """The numbers of all tags of a kind, or of the one that this scheme uses in its place."""
        first = 1 + self.kinds.index(kind if kind in self.kinds else INSTEAD[kind]) * len(self.labels)
        return slice(first, first + len(self.labels))

    def numbers(self, biluo: Iterable[str | None], labels: dict[str, int]) -> list[int]:
        """The numbers of tags in BILUO notation, as spaCy gives them; -1 for None and for unknown labels.

        labels (dict): The number of each label.
        """
        as_kind = {kind: self.kinds.index(kind if kind in self.kinds else INSTEAD[kind]) for kind in "BILU"}
        n_labels, numbers = len(self.labels), []
        for tag in biluo:
            if tag is None:
                numbers.append(MISSING)
            elif tag == OUTSIDE:
                numbers.append(0)
            else:
                label = labels.get(tag[2:])
                numbers.append(MISSING if label is None else 1 + as_kind[tag[0]] * n_labels + label)
        return numbers

    def numbers_in(self, other: "Scheme") -> np.ndarray:
        """The number of each tag in another scheme of the same name that has its labels; shape (tags,)."""
        place = np.array([other.labels.index(label) for label in self.labels], dtype=np.int64)
        kinds = np.arange(len(self.kinds))[:, None]
        return np.append(0, (1 + kinds * len(other.labels) + place).reshape(-1))

    def spans(
        self,
        tags: np.ndarray,
        log_probs: np.ndarray,
        before: np.ndarray | None = None,
        after: np.ndarray | None = None,
    ) -> Spans:
        """The spans that well-formed tags encode.

        tags (ndarray[int]): The tags of all tokens of all documents, shape (tokens,).
        log_probs (ndarray[float]): The log-probabilities of these tags, shape (tokens,).
        before (ndarray[float64] | None), after (ndarray[float64] | None): From `around_spans`, for the probabilities of
            spans; None: the score of a span is the product of its tags' probabilities.
        """
        kind, label = self.split(tags)
        if self.name == "iob2":
            start = np.flatnonzero(kind == self.kinds.index("B"))
            not_inside = np.append(np.flatnonzero(kind != self.kinds.index("I")), len(tags))
            end = not_inside[np.searchsorted(not_inside, start, side="right")]
        else:
            begin, last, unit = (kind == self.kinds.index(letter) for letter in "BLU")
            start = np.flatnonzero(begin | unit)
            end = np.flatnonzero(last | unit) + 1
        total = np.concatenate([[0.0], np.cumsum(log_probs, dtype=np.float64)])
        log = total[end] - total[start]
        if before is not None and after is not None:
            # Rounding may raise sums above 0.
            log = np.minimum(log + before[start] + after[end - 1], 0.0)
        return Spans(start, end, label[start], np.exp(log).astype(np.float32))

    def split(self, tags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The kind (-1 for O) and the label of each tag, by number."""
        kind, label = np.divmod(tags - 1, max(1, len(self.labels)))
        return kind, label

    def continues(self, tags: np.ndarray) -> np.ndarray:
        """Whether each tag continues a span; same shape as the tags."""
        kind, _ = self.split(tags)
        return np.isin(kind, [self.kinds.index(letter) for letter in self.kinds if letter in "IL"])

    def well_formed(self, tags: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Whether each tag may follow the one before it, and may end its document if it is the last.

        tags (ndarray[int]): The tags of all tokens of all documents, shape (tokens,).
        first (ndarray[bool]): Whether a token is the first of its document.
        RETURNS (ndarray[bool]): Shape (tokens,).
        """
        kind, label = self.split(tags)
        opens = np.isin(kind, [self.kinds.index(letter) for letter in "BI"])
        before_opens = np.append(False, opens[:-1]) & ~first
        same = before_opens & (np.append(-1, label[:-1]) == label)
        continues = self.continues(tags)
        fine = ~continues | same
        if self.name == "biluo":
            # An open span must continue; at the end of a document no span may be open.
            fine &= continues | ~before_opens
            last = np.append(first[1:], True)
            fine &= ~(opens & last)
        return fine


def check_scheme(name: str) -> None:
    """Validate the name of a scheme.

    RAISES (SettingError): It is not one of `SCHEMES`.
    """
    check_choice("scheme", name, SCHEMES)
