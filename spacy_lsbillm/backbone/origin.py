"""What is known about the source of a base: its commit, its licence, the command that made it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import parse_json
from .location import COMMIT

# A file beside a base that a command of this package made: how, and from what.
ORIGIN = "origin.json"


@dataclass(frozen=True)
class Origin:
    """What a stored pipeline records about its base.

    fingerprint (str): See `fingerprint`.
    digest (str | None): See `full_digest`; None if not yet computed.
    commit (str | None): The hub's commit, if the base is from there.
    license (str | None): The licence that the base's card names.
    arithmetic (dict | None): See `arithmetic_of`; None if an older version saved the pipeline.
    made_with (str | None): The command that makes the base again, if a command of this package made it.
    """

    fingerprint: str
    digest: str | None = None
    commit: str | None = None
    license: str | None = None
    arithmetic: dict[str, Any] | None = None
    made_with: str | None = None


def commit_of(folder: Path) -> str | None:
    """The hub's commit of a folder in its cache; None for other folders."""
    return folder.name if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name) else None


def made_with_of(folder: Path) -> str | None:
    """The command that made a base, from the file beside it; None if there is none."""
    try:
        said = parse_json((folder / ORIGIN).read_text(encoding="utf8")).get("made_with")
    except (OSError, ValueError, AttributeError):
        return None
    return str(said) if said else None


def license_of(folder: Path) -> str | None:
    """The licence in the front matter of a base's card; None if it names none."""
    from huggingface_hub import metadata_load

    card = folder / "README.md"
    try:
        metadata = metadata_load(card) if card.is_file() else None
    except ValueError:
        # Front matter that is not YAML.
        return None
    named = (metadata or {}).get("license")
    return str(named) if named else None
