"""What the gold documents of a batch say about the tag of each token."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from spacy.training import Example

from ..alignment import is_word
from ..tagging import Scheme
from ..tagging.scheme import MISSING, OUTSIDE
from .gold_tags import gold_tags
from .label_sets import annotated_in, annotated_labels
from .soft_tags import SoftTags, has_soft_tags, soft_tags_of
from .tag_targets import free_of_gold


@dataclass(frozen=True)
class TagAnnotation:
    """The annotation of a batch, whose tokens are numbered through all documents.

    truth (ndarray[int64]): The number of each token's gold tag, -1 if there is none or its label is unknown; shape
        (tokens,).
    free (ndarray[bool]): The tokens outside of gold spans with incomplete annotation that still count in the loss;
        shape (tokens,).
    soft (list[tuple[int, SoftTags]]): The tag probabilities that another head wrote to documents, each with the number
        of its first token.
    unknown (dict[str, Example]): The labels of gold spans that the component does not have, each with the first example
        that has it. Tokens in such spans are left out.
    """

    truth: np.ndarray
    free: np.ndarray
    soft: list[tuple[int, SoftTags]]
    unknown: dict[str, Example]

    @property
    def hard(self) -> np.ndarray:
        """The tokens whose tag the annotation determines; shape (tokens,)."""
        return (self.truth != MISSING) & ~self.free

    @property
    def learned(self) -> int:
        """The number of tokens that count in the loss."""
        return int((self.hard | self.free).sum()) + sum(tags.known for _, tags in self.soft)


def annotation_of(
    examples: Sequence[Example], scheme: Scheme, spans_key: str | None, name: str, taught: bool
) -> TagAnnotation:
    """Read the annotation of a batch.

    scheme (Scheme): The scheme of the component.
    spans_key (str | None): Where its gold spans are: `doc.spans[spans_key]`; None: `doc.ents`.
    name (str): The component's, for messages.
    taught (bool): Whether a teacher says how probable the tags are that annotation leaves open.
    RAISES (SettingError): A document carries probabilities of other tags.
    """
    truth, left_out, unknown = _truth(examples, scheme, spans_key, name)
    free = _free(examples, truth, scheme.labels, spans_key, taught) & ~left_out
    return TagAnnotation(truth, free, _soft_tags(examples, scheme, spans_key, name), unknown)


def possible_labels(examples: Sequence[Example], truth: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """The labels that each token may have according to its annotation, shape (tokens, labels)."""
    unknown = ~annotated_in((example.reference for example in examples), labels)
    of_tokens = np.repeat(unknown, [len(example.predicted) for example in examples], axis=0)
    return of_tokens | (truth == MISSING)[:, None]


def _truth(
    examples: Sequence[Example], scheme: Scheme, spans_key: str | None, name: str
) -> tuple[np.ndarray, np.ndarray, dict[str, Example]]:
    """The number of each token's gold tag, whether it is in a gold span with an unknown label, and those labels."""
    known = {label: i for i, label in enumerate(scheme.labels)}
    numbers: list[int] = []
    left_out: list[bool] = []
    unknown: dict[str, Example] = {}
    for example in examples:
        if has_soft_tags(example, spans_key):
            numbers += [MISSING] * len(example.predicted)
            left_out += [False] * len(example.predicted)
            continue
        tags = gold_tags(example, spans_key, name)
        own = scheme.numbers(tags, known)
        numbers += own
        if own.count(MISSING) > tags.count(None):
            for label in sorted({tag[2:] for tag in tags if tag is not None and tag != OUTSIDE}):
                if label not in known:
                    unknown.setdefault(label, example)
            left_out += [number == MISSING and tag is not None for number, tag in zip(own, tags, strict=True)]
        else:
            left_out += [False] * len(own)
    return np.array(numbers, dtype=np.int64), np.array(left_out, dtype=bool), unknown


def _free(
    examples: Sequence[Example], truth: np.ndarray, labels: Sequence[str], spans_key: str | None, taught: bool
) -> np.ndarray:
    if not taught and all(annotated_labels(example.reference) is None for example in examples):
        return np.zeros(len(truth), dtype=bool)
    free = free_of_gold(truth, possible_labels(examples, truth, labels))
    lengths = [len(example.predicted) for example in examples]
    free &= ~np.repeat([has_soft_tags(example, spans_key) for example in examples], lengths)
    if not taught:
        return free & (truth != MISSING)
    return free & np.concatenate([is_word(example.predicted) for example in examples])


def _soft_tags(
    examples: Sequence[Example], scheme: Scheme, spans_key: str | None, name: str
) -> list[tuple[int, SoftTags]]:
    placed, first = [], 0
    for example in examples:
        tags = soft_tags_of(example, spans_key, scheme, name)
        if tags is not None:
            placed.append((first, tags))
        first += len(example.predicted)
    return placed
