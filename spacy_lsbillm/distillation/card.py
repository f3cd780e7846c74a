"""Recording in a pipeline's meta which teacher it was trained by."""

from collections.abc import Callable
from functools import partial
from typing import Any

from spacy.language import Language

META = "distilled"

ToDisk = Callable[[Language], Language]


def create_taught_by_v1(card: dict[str, Any], then: ToDisk | None = None) -> ToDisk:
    """Create a callback for `[training.before_to_disk]` that records the teacher of a training.

    The pipelines that the training writes have it in `nlp.meta["distilled"]`.

    card (dict): What is recorded.
    then (Callable | None): Another callback to call afterwards, such as `spacy-lsbillm.save_whole.v1`.
    """
    return partial(_signed, card, then)


def _signed(card: dict[str, Any], then: ToDisk | None, nlp: Language) -> Language:
    nlp.meta[META] = card
    return nlp if then is None else then(nlp)
