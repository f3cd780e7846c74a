"""A card beside the files of a pipeline."""

import hashlib
import json
import re
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
# At the end of a card: the digest of what is above it, so that a card that somebody has edited is known as such.
MARK = re.compile(r"\n<!-- spacy-lsbillm card ([0-9a-f]{64}) -->\n$")


def write_card(folder: Path, force: bool = False) -> bool:
    """Write the card of a stored pipeline, from its files, in place of one that was written before. A README.md that
    somebody else has written, or has edited, is kept.

    folder (Path): A pipeline.
    force (bool): Replace it in any case.
    RETURNS (bool): Whether there is a new card.
    RAISES (StorageError): The folder holds no pipeline, or one that is damaged.
    """
    path = folder / CARD
    if not force and path.exists() and not _is_unedited(path):
        return False
    facts = Facts.read(folder)
    try:
        # Text from elsewhere may hold halves of characters.
        text = card_text(facts).encode("utf8", "replace").decode("utf8")
    except (AttributeError, KeyError, TypeError) as error:
        raise StorageError(
            f"{folder / META} or its config has an entry of another kind than spaCy gives it ({error!r}): put it right."
        ) from error
    write_text(path, f"{text}\n<!-- spacy-lsbillm card {_digest(text)} -->\n")
    return True


def _is_unedited(path: Path) -> bool:
    # Line ends are read as one character, whatever git has made of them.
    text = path.read_text(encoding="utf8", errors="replace")
    mark = MARK.search(text)
    return mark is not None and _digest(text[: mark.start()]) == mark[1]


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


def note_training(nlp: Language, begun: float) -> None:
    """Have a pipeline's meta say for how long it was trained, where, and with which versions.

    begun (float): When, by `time.monotonic`.
    """
    noted: dict[str, Any] = {"seconds": round(time.monotonic() - begun, 1), "device": _device()}
    noted["versions"] = {name: version(name) for name in VERSIONS_OF}
    nlp.meta[TRAINING] = noted


def _device() -> str:
    device = get_torch_default_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
