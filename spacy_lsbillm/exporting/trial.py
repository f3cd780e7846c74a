"""Comparing a pipeline with its export on a few texts: scores must be the same."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spacy.language import Language
from transformers import AutoTokenizer

from ..alignment import align, cut_pieces
from ..backbone.classifier import AUTO_CLASSES, TEXTS, UNMASKS, Head
from ..backbone.classifier_proof import states_of_head
from ..backbone.quiet import quiet
from ..errors import StorageError
from ..layers import backbone_shim, uncalibrated
from .plan import FIRST, LAST, Plan

# Texts of several lengths with several kinds of pieces. Their content does not matter.
SAMPLE = (
    "Play some jazz by Miles Davis in the kitchen tonight , and book a table for two at an Italian place in Boston .",
    "Müller & Söhne, 12 rue de l'Université, paid 1,250.50 euros on 2 May 2019 for acetylsalicylic acid!",
    "Yes .",
    "Dr Ana Horvat of the University of Zagreb said that it would rain in Paris, London and New York this weekend.",
)
# The largest accepted difference of scores, relative to the largest score. Weights and sums are rounded differently.
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
# Smaller differences, relative to the largest state, are rounding.
UNMOVED = 1e-6
# The number of a text's pieces that are used to check whether the first sees the last.
SEEN = 3


@dataclass(frozen=True)
class Expected:
    """What a pipeline computes for a text.

    text (str): The text.
    ids (tuple[int, ...]): The ids that the model receives, including special pieces.
    pieces (tuple[ndarray[int64], ...]): For each token that has pieces, their positions in `ids`.
    scores (ndarray): For these tokens, the scores before softmax, shape (tokens, tags); for a text, probabilities,
        shape (1, classes).
    """

    text: str
    ids: tuple[int, ...]
    pieces: tuple[np.ndarray, ...]
    scores: np.ndarray


@dataclass(frozen=True)
class Agreement:
    """How closely an export agrees with its pipeline.

    texts (int): The number of compared texts.
    largest (float): The largest difference of scores, relative to the largest score.
    """

    texts: int
    largest: float


def expected_of(nlp: Language, plan: Plan, texts: Sequence[str] = SAMPLE) -> list[Expected]:
    """What a pipeline computes for texts. Texts that do not fit its window are truncated."""
    transformer: Any = nlp.get_pipe(plan.transformer)
    head: Any = nlp.get_pipe(plan.component)
    shim = backbone_shim(transformer.model)
    get_spans = transformer.model.attrs["cutting"].get_spans
    prefix, suffix = shim.special.prefix.tolist(), shim.special.suffix.tolist()
    assert shim.window is not None
    expected = []
    for text in texts:
        words = text.split(" ")
        while words:
            doc = nlp.make_doc(" ".join(words))
            pieces = cut_pieces(shim.backbone.tokenizer, [doc], get_spans, shim.white_space)
            if len(pieces.ids) + len(shim.special) <= shim.window:
                break
            words.pop()
        if not words:
            continue
        transformer.set_annotations([doc], transformer.predict([doc]))
        of_piece, counts = align([doc], pieces)
        places = np.split(of_piece + len(prefix), np.cumsum(counts)[:-1])
        # A calibration is not part of the export.
        with uncalibrated(head.model):
            scores = np.asarray(head.model.predict([doc])[0], dtype=np.float32)
        real = counts > 0
        if plan.classifier.task == TEXTS:
            scores = scores[None]
        else:
            scores, places = scores[real], [place for place in places if len(place)]
        expected.append(Expected(doc.text, (*prefix, *pieces.ids.tolist(), *suffix), tuple(places), scores))
    return expected


def check_tokenizer(folder: Path, expected: Sequence[Expected]) -> None:
    """Check that the exported tokenizer cuts texts like the pipeline.

    RAISES (StorageError): It cuts a text into other pieces.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for one in expected:
        ids = tuple(tokenizer(one.text)["input_ids"])
        if ids != one.ids:
            raise StorageError(
                f"the exported tokenizer cuts {one.text!r} into {_differing(ids, one.ids)}: nothing was "
                f"exported. If the pipeline was trained with another add_bos_token than its tokenizer's default, "
                f"train it with null."
            )


def _differing(ids: tuple[int, ...], expected: tuple[int, ...]) -> str:
    pairs = itertools.zip_longest(ids, expected)
    place, (one, other) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
    return f"other pieces than the pipeline does (number {place} is {one}, not {other})"


def check_scores(folder: Path, plan: Plan, head: Head, expected: Sequence[Expected]) -> Agreement | None:
    """Load the export as users would, and compare: all texts in one padded batch, and each alone.

    RETURNS (Agreement | None): None if this version of transformers does not remove the mask.
    RAISES (StorageError): Scores differ, or a layer sees what it must not.
    """
    if plan.both_ways and not UNMASKS:
        return None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with quiet():
        model, loading_info = AUTO_CLASSES[plan.classifier.task].from_pretrained(folder, output_loading_info=True)
    if loading_info["missing_keys"] or loading_info["unexpected_keys"]:
        raise StorageError(f"the exported folder does not fit {plan.classifier.architecture}: {loading_info}.")
    model.eval()
    texts = [one.text for one in expected]
    batches = [texts, *([text] for text in texts)] if tokenizer.pad_token_id is not None else [[text] for text in texts]
    rows = [row for batch in batches for row in _scores(model, tokenizer, batch)]
    wanted = [*expected, *expected] if len(rows) > len(expected) else list(expected)
    largest = 0.0
    for row, one in zip(rows, wanted, strict=True):
        scores = (
            _probabilities(row, head) if plan.classifier.task == TEXTS else of_tokens(row, one.pieces, plan.read_as)
        )
        largest = max(largest, float(np.abs(scores - one.scores).max() / max(np.abs(one.scores).max(), 1e-6)))
    dtype = str(model.dtype).removeprefix("torch.")
    if not largest <= TOLERANCE[dtype]:
        raise StorageError(
            f"{plan.classifier.architecture} gives other scores than the pipeline: they differ by {largest:.1%} of the "
            f"largest one on the texts of the check ({TOLERANCE[dtype]:.1%} would pass for rounding in {dtype}). "
            f"Nothing was exported."
        )
    _check_sight(model, plan, max(expected, key=lambda one: len(one.ids)))
    return Agreement(len(texts), largest)


def _scores(model: Any, tokenizer: Any, texts: list[str]) -> list[np.ndarray]:
    """The scores of each text as one array, without those of padding if there are several rows."""
    inputs = tokenizer(texts, padding=len(texts) > 1, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs).logits.float()
    if logits.ndim == 2:
        return [row[None].numpy() for row in logits]
    return [row[: int(mask.sum())].numpy() for row, mask in zip(logits, inputs["attention_mask"], strict=True)]


def of_tokens(scores: np.ndarray, pieces: Sequence[np.ndarray], read_as: str) -> np.ndarray:
    """The scores of tokens, derived from those of pieces.

    scores (ndarray): Shape (pieces, tags).
    pieces (Sequence): For each token, the positions of its pieces.
    RETURNS (ndarray): Shape (tokens, tags).
    """
    if read_as in (FIRST, LAST):
        return scores[[places[0 if read_as == FIRST else -1] for places in pieces]]
    return np.stack([scores[places].mean(axis=0) for places in pieces])


def _probabilities(scores: np.ndarray, head: Head) -> np.ndarray:
    logits = torch.from_numpy(scores)
    return (logits.sigmoid() if head.shift_counts else logits.softmax(dim=1)).numpy()


def _check_sight(model: Any, plan: Plan, one: Expected) -> None:
    """Check whether the first piece sees the last one.

    RAISES (StorageError): It does and must not, or does not and must.
    """
    # At most as many pieces as the narrowest window makes visible to each other.
    few = one.ids[:SEEN]
    ids = torch.tensor([few, few])
    ids[1, -1] = ids[1, 0] if ids[1, 0] != ids[1, -1] else (ids[1, -1] + 1) % model.config.vocab_size
    states = states_of_head(model, plan.classifier.head, ids, torch.ones_like(ids))[:, 0].float()
    moves = bool((states[0] - states[1]).abs().max() > UNMOVED * states.abs().max())
    if moves != plan.both_ways:
        raise StorageError(
            f"in the exported folder the first piece of a text {'moves' if moves else 'does not move'} when the last "
            f"one changes, with {plan.mask.words} in the pipeline: nothing was exported."
        )
