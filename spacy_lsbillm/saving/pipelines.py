"""Writing whole pipelines atomically: a stop at any moment leaves either the old one or the new one."""

import shutil
import warnings
from pathlib import Path

import srsly
from spacy.language import Language
from spacy.util import load_config

from ..cards import write_card
from ..files import replaced_folder
from ..layers import calibration_of, is_pooled_textcat
from ..pipeline.calibrated import META as CALIBRATIONS
from ..pipeline.calibrated import CalibratedComponent
from ..pipeline.config_blocks import billm_blocks
from ..pipeline.sources import name_sources

META, CONFIG = "meta.json", "config.cfg"


def save(nlp: Language, path: str | Path) -> None:
    """Save a pipeline atomically: write it beside the one that is there, then exchange the two in one step.

    (`nlp.to_disk` overwrites a pipeline file by file.) Files in the folder that are not part of the old pipeline are
    kept. If the pipeline has a billm_transformer, its model card is written as well.

    path (str | Path): The folder of a pipeline, or a new one.
    RAISES (StorageError): There is something else at the path, or another process is writing to it.
    """
    save_timed(nlp, Path(path))


def save_timed(nlp: Language, path: Path, seconds: float | None = None) -> None:
    """Save a pipeline like `save`, with the duration of its training in the card.

    seconds (float | None): The duration; None if it is unknown.
    """
    name_sources(nlp.meta, (getattr(pipe, "model", None) for _, pipe in nlp.components))
    settle_calibrations(nlp)
    with replaced_folder(path, known_by=META) as folder:
        # Not nlp.to_disk, in whose place `save_whole` puts this function.
        type(nlp).to_disk(nlp, folder)
        keep_others(path, folder)
        write_card_of(folder, seconds)


def settle_calibrations(nlp: Language) -> None:
    """Make the results of `calibrate` in a pipeline's meta those of its heads.

    The classifiers are components of spaCy, which do not know the meta when they lose their calibration in further
    training, and a component that was sourced from another pipeline knows only the meta of that one.
    """
    written = nlp.meta.setdefault(CALIBRATIONS, {})
    if not isinstance(written, dict):
        return  # Not the work of `calibrate`: whoever reads it says what is wrong.
    for name, pipe in nlp.components:
        model = getattr(pipe, "model", None)
        if isinstance(pipe, CalibratedComponent):
            calibrated = pipe.calibration is not None
            sourced = (pipe.meta or {}).get(CALIBRATIONS)
            if calibrated and name not in written and isinstance(sourced, dict) and pipe.name in sourced:
                written[name] = sourced[pipe.name]
        elif model is not None and is_pooled_textcat(model):
            calibrated = calibration_of(model) is not None
        else:
            continue
        if not calibrated:
            written.pop(name, None)
    if not written:
        del nlp.meta[CALIBRATIONS]


def keep_others(old: Path, new: Path) -> None:
    """Keep files that are not part of the old pipeline, such as notes that a user has put there."""
    if not (old / META).is_file():
        return
    try:
        parts = {META, CONFIG, "vocab", "tokenizer", *srsly.read_json(old / META).get("components", ())}
    except ValueError:
        # A partly written pipeline: it does not say which files belong to it, so all are kept.
        parts = set()
    for path in old.iterdir():
        if path.name not in parts and not (new / path.name).exists():
            if path.is_dir():
                shutil.copytree(path, new / path.name)
            else:
                shutil.copy2(path, new / path.name)


def write_card_of(folder: Path, seconds: float | None = None) -> None:
    """Write the card of a pipeline that was just saved, if it has a billm_transformer.

    An error only gives a warning: hours of training are worth more than a card.

    seconds (float | None): How long the training took, if there was one.
    """
    try:
        if billm_blocks(load_config(folder / CONFIG)):
            write_card(folder, seconds=seconds)
    except Exception as error:
        warnings.warn(
            f"no model card was written, as {type(error).__name__}: {error}. The pipeline is saved. Try again with: "
            f"python -m spacy lsbillm card",
            stacklevel=3,
        )
