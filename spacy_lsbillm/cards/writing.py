"""A card beside the files of a pipeline."""

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
# At the end of a card: the digest of what is above it, so that a card that somebody has edited is known as such; and
# how long the training took, which stands nowhere else: other files are the same when a training is made again.
MARK = re.compile(r"\n<!-- spacy-lsbillm card (?P<digest>[0-9a-f]{64})(?:, (?P<seconds>[\d.]+) s)? -->\n$")


def write_card(folder: Path, force: bool = False, seconds: float | None = None) -> bool:
    """Write the card of a stored pipeline, from its files, in place of one that was written before. A README.md that
    somebody else has written, or has edited, is kept.

    folder (Path): A pipeline.
    force (bool): Replace it in any case.
    seconds (float | None): How long the training took; None: as the card says that is replaced, if it does.
    RETURNS (bool): Whether there is a new card.
    RAISES (StorageError): The folder holds no pipeline, or one that is damaged.
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
        # Text from elsewhere may hold halves of characters.
        text = card_text(facts).encode("utf8", "replace").decode("utf8")
    except (AttributeError, KeyError, TypeError) as error:
        raise StorageError(
            f"{folder / META} or its config has an entry of another kind than spaCy gives it ({error!r}): put it right."
        ) from error
    took = "" if seconds is None else f", {seconds:.1f} s"
    write_text(path, f"{text}\n<!-- spacy-lsbillm card {_digest(text)}{took} -->\n")
    return True


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf8")).hexdigest()


def add_evaluation(folder: Path, data: str, scores: Path) -> None:
    """Have a stored pipeline's meta hold scores on further data, in place of those on the same.

    folder (Path): A pipeline.
    data (str): Which, in words.
    scores (Path): A JSON file, as `spacy evaluate --output` writes it.
    RAISES (SettingError): It holds no scores.
    """
    try:
        found = parse_json(scores.read_text(encoding="utf8"))
    except ValueError as error:
        raise SettingError(f"{scores} is no JSON ({error}): give what spacy evaluate --output has written.") from error
    known = numbers(found)
    if not known:
        raise SettingError(f"{scores} holds no score that a card shows: give what spacy evaluate --output has written.")
    meta = parse_json((folder / META).read_text(encoding="utf8"))
    others = [entry for entry in meta.get(EVALUATIONS) or [] if entry["data"] != data]
    meta[EVALUATIONS] = [*others, {"data": data, "scores": known}]
    write_text(folder / META, json.dumps(meta, indent=2, ensure_ascii=False) + "\n")


def note_training(nlp: Language) -> None:
    """Have a pipeline's meta say where it was trained, and with which versions."""
    nlp.meta[TRAINING] = {"device": _device(), "versions": {name: version(name) for name in VERSIONS_OF}}


def _device() -> str:
    device = get_torch_default_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
