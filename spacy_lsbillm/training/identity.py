"""What identifies a training, so that it is not resumed as another."""

import importlib.metadata
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinc.api import Config

from ..files import content_of

LIBRARIES = (
    "spacy-lsbillm",
    "spacy",
    "spacy-transformers",
    "thinc",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "numpy",
)
# Settings that decide when a training ends or what it prints, but not what a step computes.
MAY_CHANGE = ("training.max_steps", "training.eval_frequency", "training.patience", "training.logger.")
# The settings of a config that name files to read.
FILES_IN = ("paths.", "corpora.", "initialize.")


def identity_of(config: Config, device: str) -> dict[str, Any]:
    """Everything that decides a training: the config, the content of the files that it names, versions, the device.

    config (Config): With all variables filled in.
    device (str): "cpu" or "gpu".
    RETURNS (dict): Strings and numbers by name.
    """
    identity: dict[str, Any] = {"device": device}
    for place, value in _leaves(config):
        name = ".".join(place)
        if isinstance(value, str) and name.startswith(FILES_IN) and value and Path(value).exists():
            # The content matters, not the path.
            value = content_of(Path(value))
        identity[name] = value
    for library in LIBRARIES:
        identity[f"version of {library}"] = _version(library)
    identity["version of Python"] = ".".join(map(str, sys.version_info[:2]))
    return identity


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The differences between two trainings, one line each, except in settings that may differ."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name) and not name.startswith(MAY_CHANGE):
            lines.append(f"{name}: {_shown(old, name)}, now {_shown(new, name)}")
    return lines


def _leaves(config: Mapping[str, Any], place: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    leaves: list[tuple[tuple[str, ...], Any]] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            leaves += _leaves(value, (*place, str(key)))
        else:
            leaves.append(((*place, str(key)), value))
    return leaves


def _shown(identity: Mapping[str, Any], name: str) -> str:
    return repr(identity[name]) if name in identity else "not there"


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
