"""Who taught a pipeline, in its meta."""

from collections.abc import Callable
from functools import partial
from typing import Any

from spacy.language import Language

META = "distilled"

ToDisk = Callable[[Language], Language]


def create_taught_by_v1(card: dict[str, Any], then: ToDisk | None = None) -> ToDisk:
    """For `[training.before_to_disk]`: the pipelines that a training writes say in `nlp.meta["distilled"]` who taught
    them.

    card (dict): What they say.
    then (Callable | None): What is called after it, such as `spacy-lsbillm.save_whole.v1`.
    """
    return partial(_signed, card, then)


def _signed(card: dict[str, Any], then: ToDisk | None, nlp: Language) -> Language:
    nlp.meta[META] = card
    return nlp if then is None else then(nlp)
