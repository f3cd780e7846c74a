"""The most probable tags of each token by one head, from which another head can be trained.

A `sequence_labeler` with `top_tags` writes them, packed, to `doc.user_data`, so that they can be stored with the
document. A reader that knows the scheme replaces them by `SoftTags`, from which a `sequence_labeler` is trained.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from spacy.tokens import Doc
from spacy.training import Example

from ..errors import DataError, SettingError
from ..tagging import Scheme
from .gold_spans import same_tokens

# In `doc.user_data`: by group of spans, "" for entities.
SOFT_TAGS = "soft_tags"
# Less probable tags are not stored; the probabilities of the others are normalised.
LEAST = 1e-3
# The parts of packed tags, and their dtypes.
PARTS = {"counts": "u1", "tags": "<u2", "probabilities": "<f2"}


@dataclass(frozen=True)
class SoftTags:
    """The most probable tags of each token, token by token.

    scheme (Scheme): The scheme of the tag numbers.
    counts (ndarray[uint8]): The number of stored tags per token; 0 if nothing is known about it. Shape (tokens,).
    tags (ndarray[uint16]), probabilities (ndarray[float16]): The stored tags, shape (sum of counts,). Probabilities of
        a token add up to 1.
    """

    scheme: Scheme
    counts: np.ndarray
    tags: np.ndarray
    probabilities: np.ndarray

    @property
    def known(self) -> int:
        """The number of tokens with stored tags."""
        return int(np.count_nonzero(self.counts))

    def rows(self) -> np.ndarray:
        """The token number of each stored tag."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def of_tag(self, tag: int) -> np.ndarray:
        """The probability of one tag at each token, 0 where it is not stored; shape (tokens,)."""
        chosen = self.tags == tag
        probabilities = np.zeros(len(self.counts), dtype=np.float32)
        probabilities[self.rows()[chosen]] = self.probabilities[chosen]
        return probabilities

    def shares(self) -> np.ndarray:
        """The probabilities of all tags, for tokens with stored tags; shape (known, tags), float32."""
        probabilities = np.zeros((self.known, self.scheme.n_tags), dtype=np.float32)
        # No tag is stored twice for a token.
        place = np.cumsum(self.counts > 0) - 1
        probabilities[place[self.rows()], self.tags] = self.probabilities
        return probabilities

    def at(self, tokens: np.ndarray) -> "SoftTags":
        """The tags in another tokenization.

        tokens (ndarray[int64]): For each new token the number of the token with its tags, or -1 for none.
        """
        before = self.counts.astype(np.int64)
        counts = np.where(tokens >= 0, before[tokens], 0)
        begin = (np.cumsum(before) - before)[tokens]
        # The indices of each kept token's tags, one after the other.
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        chosen = np.repeat(begin, counts) + within
        return SoftTags(self.scheme, counts.astype(np.uint8), self.tags[chosen], self.probabilities[chosen])

    def by_document(self, lengths: Sequence[int]) -> Iterator["SoftTags"]:
        """The tags of each document.

        lengths (Sequence[int]): Tokens per document.
        """
        counts = np.split(self.counts, np.cumsum(lengths)[:-1])
        ends = np.cumsum([part.sum(dtype=np.int64) for part in counts])[:-1]
        parts = zip(counts, np.split(self.tags, ends), np.split(self.probabilities, ends), strict=True)
        return (SoftTags(self.scheme, *part) for part in parts)

    def packed(self) -> dict[str, bytes]:
        """The tags as bytes for a file, without the scheme."""
        return {name: getattr(self, name).astype(kind).tobytes() for name, kind in PARTS.items()}

    @classmethod
    def unpacked(cls, scheme: Scheme, content: dict[str, bytes], doc: Doc) -> "SoftTags":
        """Read what `packed` returned.

        RAISES (DataError): It does not belong to this document.
        """
        tags = cls(scheme, *(np.frombuffer(content[name], dtype=kind) for name, kind in PARTS.items()))
        if len(tags.counts) != len(doc) or tags.counts.sum(dtype=np.int64) != len(tags.tags):
            raise DataError(f"the tags that are stored with {doc.text[:60]!r} are not of its {len(doc)} tokens.")
        return tags


def most_probable(marginals: np.ndarray, most: int, scheme: Scheme, words: np.ndarray, tokens: int) -> SoftTags:
    """The most probable tags of each word.

    marginals (ndarray[float32]): Shape (words, tags).
    most (int): Maximum number of tags per word.
    words (ndarray[int64]): The token number of each word.
    tokens (int): The number of tokens.
    """
    most = min(most, scheme.n_tags)
    best = np.argpartition(-marginals, most - 1, axis=1)[:, :most]
    highest = np.take_along_axis(marginals, best, axis=1)
    kept = highest >= np.minimum(LEAST, highest.max(axis=1, keepdims=True))
    highest = highest * kept
    highest /= highest.sum(axis=1, keepdims=True)
    counts = np.zeros(tokens, dtype=np.uint8)
    counts[words] = kept.sum(axis=1)
    return SoftTags(scheme, counts, best[kept].astype(np.uint16), highest[kept].astype(np.float16))


def write_soft_tags(docs: Sequence[Doc], spans_key: str | None, tags: SoftTags) -> None:
    """Write tags to documents, packed.

    tags (SoftTags): The tags of the tokens of all documents.
    """
    for doc, own in zip(docs, tags.by_document([len(doc) for doc in docs]), strict=True):
        doc.user_data.setdefault(SOFT_TAGS, {})[spans_key or ""] = own.packed()


def unpack_soft_tags(doc: Doc, schemes: dict[str, Scheme]) -> dict[str, SoftTags]:
    """Unpack the tags that were stored with a document; they replace the packed ones.

    schemes (dict): Schemes by group of spans, "" for entities.
    """
    packed: dict[str, Any] = doc.user_data.get(SOFT_TAGS, {})
    unpacked = {key: SoftTags.unpacked(schemes[key], content, doc) for key, content in packed.items()}
    doc.user_data[SOFT_TAGS] = unpacked
    return unpacked


def has_soft_tags(example: Example, spans_key: str | None) -> bool:
    """Whether the gold document of an example has tags from another head."""
    return (spans_key or "") in example.reference.user_data.get(SOFT_TAGS, {})


def soft_tags_of(example: Example, spans_key: str | None, scheme: Scheme, name: str) -> SoftTags | None:
    """The soft tags of the predicted document's tokens, for training; None if the gold document has none.

    Tokens that differ between the two documents have none.

    name (str): The component's, for the message.
    RAISES (SettingError): They have another scheme, or other labels.
    """
    tags: SoftTags | None = example.reference.user_data.get(SOFT_TAGS, {}).get(spans_key or "")
    if tags is None:
        return None
    if not isinstance(tags, SoftTags):
        raise SettingError(
            f"{name!r} gets documents of a distillation as they are stored: read them with "
            f"spacy-lsbillm.DistilledCorpus.v1 in [corpora.train]."
        )
    if tags.scheme != scheme:
        raise SettingError(
            f"{name!r} has {scheme_in_words(scheme)}, but its teacher has {scheme_in_words(tags.scheme)}. Give it "
            f"the same scheme, and the same labels in that order (initialize.components.{name}.labels)."
        )
    if same_tokens(example):
        return tags
    alignment = example.alignment
    single = alignment.x2y.lengths == 1
    tokens = np.full(len(example.predicted), -1, dtype=np.int64)
    tokens[single] = alignment.x2y.data[np.cumsum(alignment.x2y.lengths)[single] - 1]
    tokens[single & (alignment.y2x.lengths[tokens] != 1)] = -1
    return tags.at(tokens)


def scheme_in_words(scheme: Scheme) -> str:
    """A scheme and its labels in words, for a message."""
    labels = ", ".join(map(repr, scheme.labels[:8])) + (", …" if len(scheme.labels) > 8 else "")
    return f"the scheme {scheme.name!r} and {len(scheme.labels)} labels ({labels})"
