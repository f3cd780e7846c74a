"""The gold tags of tokens, which encode the gold spans of a document."""

import numpy as np
from spacy.training import Example

from ..alignment import is_word
from ..tagging.scheme import OUTSIDE as OUTSIDE_TAG
from .gold_spans import check_overlap, gold_spans, same_tokens

# spaCy's code in `token.ent_iob` for a token that is in no entity.
OUTSIDE = 2


def gold_tags(example: Example, spans_key: str | None, name: str) -> list[str | None]:
    """BILUO tags of the predicted document's tokens; None for tokens without annotation or alignment.

    White space has none: the tags are those of the document without it. (spaCy's `offsets_to_biluo_tags` knows neither
    that nor tokens that differ from the gold document's.)

    name (str): The component's, for the message.
    RAISES (SettingError): Gold spans overlap.
    """
    reference, predicted = example.reference, example.predicted
    gold = gold_spans(reference, spans_key)
    if gold is None or (spans_key is None and not reference.has_annotation("ENT_IOB")):
        return [None] * len(predicted)
    check_overlap(gold, reference, name)
    same = same_tokens(example)
    if spans_key is None:
        # spaCy aligns tokens even if they are the same, which takes longer than the head's own work.
        codes = reference.to_array("ENT_IOB").tolist() if same else example.get_aligned("ENT_IOB")
        outside = [code == OUTSIDE for code in codes]
    else:
        outside = [True] * len(predicted)
    if not same:
        # Tokens and spans that do not align are left out of the loss.
        alignment = example.alignment
        for i in (
            *np.flatnonzero(alignment.x2y.lengths == 0),
            *(i for span in gold for i in alignment.y2x[span.start : span.end]),
        ):
            outside[i] = False
        gold = example.get_aligned_spans_y2x(gold)
    word = is_word(predicted).tolist()
    tags: list[str | None] = [OUTSIDE_TAG if out and real else None for out, real in zip(outside, word, strict=True)]
    for span in gold:
        words = [i for i in range(span.start, span.end) if word[i]]
        for i, tag in zip(words, span_tags(len(words), span.label_), strict=True):
            tags[i] = tag
    return tags


def span_tags(length: int, label: str) -> list[str]:
    """The BILUO tags of the tokens of one span.

    length (int): Its number of tokens, at least one.
    """
    if length == 1:
        return [f"U-{label}"]
    return [f"B-{label}", *[f"I-{label}"] * (length - 2), f"L-{label}"]
