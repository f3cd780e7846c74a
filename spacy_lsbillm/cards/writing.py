"""Writing the card of a pipeline beside its files."""

import hashlib
import json
import re
from importlib.metadata import version
from pathlib import Path

import torch
from spacy.language import Language
from thinc.api import get_torch_default_device

from ..errors import SettingError, StorageError
from ..files import parse_json, write_text
from .facts import EVALUATIONS, META, TRAINING, Facts
from .scores import numbers
from .text import card_text

CARD = "README.md"
VERSIONS_OF = ("spacy", "spacy-transformers", "thinc")
# The end of a card: the digest of what is above it, which shows whether the card was edited; and the duration of the
# training, which is stored nowhere else, so that other files are the same when a training is repeated.
MARK = re.compile(r"\n<!-- spacy-lsbillm card (?P<digest>[0-9a-f]{64})(?:, (?P<seconds>[\d.]+) s)? -->\n$")


def write_card(folder: Path, force: bool = False, seconds: float | None = None) -> bool:
    """Write the card of a stored pipeline, from its files.

    An earlier card is replaced, but a README.md that was edited, or written by hand, is kept.

    folder (Path): A pipeline.
    force (bool): Replace it in any case.
    seconds (float | None): How long the training took; None: the duration in the replaced card, if there is one.
    RETURNS (bool): Whether a card was written.
    RAISES (StorageError): The folder contains no pipeline, or a damaged one.
    """
    path = folder / CARD
    # Line ends are read as one character, whatever git has made of them.
    old = path.read_text(encoding="utf8", errors="replace") if path.exists() else None
    mark = MARK.search(old) if old is not None else None
    if old is not None and not force and (mark is None or _digest(old[: mark.start()]) != mark["digest"]):
        return False
    if seconds is None and mark is not None and mark["seconds"]:
        seconds = float(mark["seconds"])
    facts = Facts.read(folder, seconds)
    try:
        # Text from elsewhere may contain halves of surrogate pairs.
        text = card_text(facts).encode("utf8", "replace").decode("utf8")
    except (AttributeError, KeyError, TypeError) as error:
        raise StorageError(
            f"{folder / META} or its config has an entry of another type than spaCy gives it ({error!r}): correct it."
        ) from error
    took = "" if seconds is None else f", {seconds:.1f} s"
    write_text(path, f"{text}\n<!-- spacy-lsbillm card {_digest(text)}{took} -->\n")
    return True


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf8")).hexdigest()


def add_evaluation(folder: Path, data: str, scores: Path) -> None:
    """Add scores on further data to a stored pipeline's meta. Earlier scores on the same data are replaced.

    folder (Path): A pipeline.
    data (str): The data, in words.
    scores (Path): A JSON file from `spacy evaluate --output`.
    RAISES (SettingError): It contains no scores.
    """
    try:
        content = parse_json(scores.read_text(encoding="utf8"))
    except ValueError as error:
        raise SettingError(
            f"{scores} is not JSON ({error}): give the file that spacy evaluate --output wrote."
        ) from error
    known = numbers(content)
    if not known:
        raise SettingError(
            f"{scores} holds no score that a card shows: give the file that spacy evaluate --output wrote."
        )
    meta = parse_json((folder / META).read_text(encoding="utf8"))
    others = [entry for entry in meta.get(EVALUATIONS) or [] if entry["data"] != data]
    meta[EVALUATIONS] = [*others, {"data": data, "scores": known}]
    write_text(folder / META, json.dumps(meta, indent=2, ensure_ascii=False) + "\n")


def note_training(nlp: Language) -> None:
    """Record in a pipeline's meta on which device and with which versions it was trained."""
    nlp.meta[TRAINING] = {"device": _device(), "versions": {name: version(name) for name in VERSIONS_OF}}


def _device() -> str:
    device = get_torch_default_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
