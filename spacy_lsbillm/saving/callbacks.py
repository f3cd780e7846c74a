"""Callbacks of a training that save its pipelines."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from spacy.language import Language

from ..cards import note_training
from ..errors import StorageError
from .pipelines import save_timed, settle_calibrations, write_card_of


def create_save_whole_v1() -> Callable[[Language], Language]:
    """Create a callback for `[training.before_to_disk]` that writes pipelines with `save`.

    The pipelines of a training are then replaced as a whole, and have a model card.
    """
    return _saved_by(_save_whole)


def create_write_card_v1() -> Callable[[Language], Language]:
    """Create a callback for `[training.before_to_disk]` that adds a model card to pipelines.

    The pipelines that a training writes get a README.md with their current scores.
    """
    return _saved_by(_save_with_card)


def _saved_by(write: Callable[..., None]) -> Callable[[Language], Language]:
    """Create a callback that replaces `nlp.to_disk` with a function. It is made when the training begins."""
    return partial(_replace_to_disk, write, time.monotonic())


def _replace_to_disk(write: Callable[..., None], begun: float, nlp: Language) -> Language:
    note_training(nlp)
    nlp.to_disk = partial(write, nlp, begun)  # type: ignore[method-assign]
    return nlp


def _save_whole(nlp: Language, begun: float, path: str | Path, **arguments: Any) -> None:
    if any(arguments.values()):
        raise StorageError(f"save_whole writes whole pipelines: {', '.join(arguments)} cannot be given.")
    save_timed(nlp, Path(path), time.monotonic() - begun)


def _save_with_card(nlp: Language, begun: float, path: str | Path, **arguments: Any) -> None:
    settle_calibrations(nlp)
    type(nlp).to_disk(nlp, path, **arguments)
    write_card_of(Path(path), time.monotonic() - begun)
