"""What is known of where a base comes from: its commit, its licence, the command that has made it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import parse_json
from .location import COMMIT

# Beside a base that a command here has made: how, and from what.
ORIGIN = "origin.json"


@dataclass(frozen=True)
class Origin:
    """What a stored pipeline says of its base.

    fingerprint (str): See `fingerprint`.
    digest (str | None): See `full_digest`; None if not yet computed.
    commit (str | None): Of the hub, if it is from there.
    license (str | None): As the base's card names it.
    arithmetic (dict | None): See `arithmetic_of`; None where an older version has saved the pipeline.
    made_with (str | None): The command that makes it again, if one of this package has made it.
    """

    fingerprint: str
    digest: str | None = None
    commit: str | None = None
    license: str | None = None
    arithmetic: dict[str, Any] | None = None
    made_with: str | None = None


def commit_of(folder: Path) -> str | None:
    """The hub's commit that a folder of its cache holds."""
    return folder.name if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name) else None


def made_with_of(folder: Path) -> str | None:
    """The command that has made a base, as it says beside it; None where nothing does."""
    try:
        said = parse_json((folder / ORIGIN).read_text(encoding="utf8")).get("made_with")
    except (OSError, ValueError, AttributeError):
        return None
    return str(said) if said else None


def license_of(folder: Path) -> str | None:
    """The licence that a base's card names in its front matter; None without one."""
    from huggingface_hub import metadata_load

    card = folder / "README.md"
    try:
        metadata = metadata_load(card) if card.is_file() else None
    except ValueError:
        # Front matter that is no YAML.
        return None
    named = (metadata or {}).get("license")
    return str(named) if named else None
