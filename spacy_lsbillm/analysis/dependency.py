"""The right-side dependency ratio of labelled tokens (Dukić and Šnajder, 2024)."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from spacy.tokens import Doc, Span


@dataclass
class RightSide:
    """Counts of the dependency arcs of tokens inside gold spans: the arc to a token's head and those to its children.

    right (int): The arcs whose other end is to the right of the token.
    total (int): All arcs.
    by_label (dict): The same counts for each label.
    """

    right: int = 0
    total: int = 0
    by_label: dict[str, "RightSide"] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The share of arcs to the right among all arcs; None if there are none."""
        return self.right / self.total if self.total else None


def right_side(pairs: Iterable[tuple[Doc, Iterable[Span]]]) -> RightSide:
    """Count the arcs of labelled tokens.

    pairs (Iterable): Parsed documents with their gold spans. A token in several spans counts once per span.
    RETURNS (RightSide): The counts, over all labels and for each.
    """
    counts_of_all = RightSide()
    for doc, spans in pairs:
        right, total = arcs(doc)
        for span in spans:
            counts = int(right[span.start : span.end].sum()), int(total[span.start : span.end].sum())
            for one in (counts_of_all, counts_of_all.by_label.setdefault(span.label_, RightSide())):
                one.right += counts[0]
                one.total += counts[1]
    return counts_of_all


def arcs(doc: Doc) -> tuple[np.ndarray, np.ndarray]:
    """Count the dependency arcs of each token to the right and in all. A root has no arc to a head.

    RETURNS (tuple[ndarray, ndarray]): The arcs to the right and all arcs, shape (tokens,).
    """
    place = np.arange(len(doc))
    # spaCy gives the distance of each token to its head as an unsigned number.
    head = place + doc.to_array(["HEAD"]).astype(np.int64).reshape(-1)
    child = np.flatnonzero(head != place)
    right, total = np.zeros(len(doc), dtype=np.int64), np.zeros(len(doc), dtype=np.int64)
    np.add.at(total, child, 1)
    np.add.at(total, head[child], 1)
    np.add.at(right, child[head[child] > child], 1)
    np.add.at(right, head[child][child > head[child]], 1)
    return right, total
