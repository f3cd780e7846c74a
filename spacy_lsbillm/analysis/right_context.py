"""How the predictions of a trained labeler for a token change if the text to its right is removed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from spacy.language import Language
from spacy.tokens import Doc, Span

from ..errors import SettingError

BATCH = 64
KINDS = INSIDE, OUTSIDE = "inside gold spans", "outside"


@dataclass(frozen=True)
class ContextChange:
    """The change over the sampled tokens of one kind.

    tokens (int): The number of tokens.
    distance (float): The mean total variation distance between the tags' probabilities with and without the text that
        follows: 0 if nothing changes, 1 if they have nothing in common.
    whole (float): The mean probability of the gold label (the sum over its tags, or that of O) in the whole document.
    cut (float): The same in the document cut off after the token.
    """

    tokens: int
    distance: float
    whole: float
    cut: float


def right_context(
    nlp: Language, examples: Sequence[tuple[Doc, Iterable[Span]]], sample: int = 2000, seed: int = 0
) -> dict[str, ContextChange]:
    """Compare a labeler's probabilities for tokens with the text to their right and without it.

    Each token is looked at in its whole document and at the end of the document cut off after it.

    nlp (Language): A trained pipeline with a `sequence_labeler`.
    examples (Sequence): Documents without predictions, with their gold spans.
    sample (int): The maximum number of tokens of each kind, drawn without replacement.
    seed (int): The seed of the draw.
    RETURNS (dict): The change by kind: "inside gold spans" and "outside". A kind without tokens is missing.
    RAISES (SettingError): The pipeline has no `sequence_labeler`, or the corpus has no tokens.
    """
    name = next((name for name in nlp.pipe_names if nlp.get_pipe_meta(name).factory == "sequence_labeler"), None)
    if name is None:
        raise SettingError(
            f"the pipeline has no sequence_labeler, whose probabilities are compared. It has: "
            f"{', '.join(nlp.pipe_names) or 'nothing'}."
        )
    labels = [_gold(doc, spans) for doc, spans in examples]
    places = np.array([(d, t) for d, (doc, _) in enumerate(examples) for t in range(len(doc))]).reshape(-1, 2)
    inside = np.array([labels[d][t] != "" for d, t in places], dtype=bool)
    if not len(places):
        raise SettingError("the corpus has no tokens: there is nothing to compare.")
    rng = np.random.default_rng(seed)
    chosen = {
        kind: rng.permutation(np.flatnonzero(inside == wanted))[:sample]
        for kind, wanted in zip(KINDS, (True, False), strict=True)
    }
    docs = [doc for doc, _ in examples]
    needed = sorted({int(places[i, 0]) for rows in chosen.values() for i in rows})
    whole = dict(zip(needed, _probabilities(nlp, name, [docs[d] for d in needed]), strict=True))
    columns = _columns(nlp, name)
    changes = {}
    for kind, rows in chosen.items():
        picked = [(int(d), int(t)) for d, t in places[rows]]
        cuts = _probabilities(nlp, name, [docs[d][: t + 1].as_doc() for d, t in picked])
        before = [whole[d][t] for d, t in picked]
        after = [probabilities[-1] for probabilities in cuts]
        masks = [columns.get(labels[d][t]) for d, t in picked]
        known = [i for i, mask in enumerate(masks) if mask is not None]
        if known:
            distances = [0.5 * float(np.abs(before[i] - after[i]).sum()) for i in known]
            gold = [(float(before[i][masks[i]].sum()), float(after[i][masks[i]].sum())) for i in known]
            mean_whole, mean_cut = np.mean(gold, axis=0)
            changes[kind] = ContextChange(len(known), float(np.mean(distances)), float(mean_whole), float(mean_cut))
    return changes


def _gold(doc: Doc, spans: Iterable[Span]) -> list[str]:
    labels = [""] * len(doc)
    for span in spans:
        labels[span.start : span.end] = [span.label_] * len(span)
    return labels


def _columns(nlp: Language, name: str) -> dict[str, np.ndarray]:
    """Which tags belong to each label; to "" belongs O."""
    labeler: Any = nlp.get_pipe(name)
    scheme = labeler.scheme
    label_of = np.array([tag[2:] for tag in scheme.tags])
    return {label: label_of == label for label in ("", *scheme.labels)}


def _probabilities(nlp: Language, name: str, docs: list[Doc]) -> list[np.ndarray]:
    """The probabilities of all tags for all tokens, shape (tokens, tags) per document.

    A CRF has no probabilities of single tags: there they are the share of all sequences that have the tag.
    """
    probabilities = []
    labeler: Any = nlp.get_pipe(name)
    earlier = nlp.pipeline[: nlp.pipe_names.index(name)]
    for start in range(0, len(docs), BATCH):
        batch = docs[start : start + BATCH]
        for _, pipe in earlier:
            batch = list(pipe.pipe(iter(batch))) if hasattr(pipe, "pipe") else [pipe(doc) for doc in batch]
        if labeler.transitions is not None:
            ends = np.cumsum([len(doc) for doc in batch])[:-1]
            probabilities += np.split(labeler.tag_probabilities(batch), ends)
            continue
        for scores in labeler.model.predict(batch):
            probabilities.append(labeler.model.ops.to_numpy(labeler.model.ops.softmax(scores)))
    return probabilities
