"""The right-side dependency ratio of labelled tokens (Dukić and Šnajder, 2024)."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from spacy.tokens import Doc, Span


@dataclass
class RightSide:
    """Dependency arcs of the tokens inside gold spans: to a token's head and to its children.

    right (int): Those whose other end stands to the right of the token.
    all (int): All of them.
    by_label (dict): The same for each label.
    """

    right: int = 0
    all: int = 0
    by_label: dict[str, "RightSide"] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Right arcs by all arcs; None where there are none."""
        return self.right / self.all if self.all else None


def right_side(pairs: Iterable[tuple[Doc, Iterable[Span]]]) -> RightSide:
    """Count the arcs of labelled tokens.

    pairs (Iterable): Parsed documents and their gold spans. A token in several spans counts in each.
    """
    found = RightSide()
    for doc, spans in pairs:
        right, total = arcs(doc)
        for span in spans:
            counts = int(right[span.start : span.end].sum()), int(total[span.start : span.end].sum())
            for one in (found, found.by_label.setdefault(span.label_, RightSide())):
                one.right += counts[0]
                one.all += counts[1]
    return found


def arcs(doc: Doc) -> tuple[np.ndarray, np.ndarray]:
    """For each token how many arcs it has to the right, and how many in all; a root has none to a head."""
    place = np.arange(len(doc))
    # Of each token how far away its head is; spaCy gives it as an unsigned number.
    head = place + doc.to_array(["HEAD"]).astype(np.int64).reshape(-1)
    child = np.flatnonzero(head != place)
    right, total = np.zeros(len(doc), dtype=np.int64), np.zeros(len(doc), dtype=np.int64)
    np.add.at(total, child, 1)
    np.add.at(total, head[child], 1)
    np.add.at(right, child[head[child] > child], 1)
    np.add.at(right, head[child][child > head[child]], 1)
    return right, total
