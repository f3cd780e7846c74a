"""Where the base of a loaded or a stored backbone is now."""

import contextlib
from pathlib import Path
from typing import Any

from ..errors import BaseError
from .fingerprint import fingerprint
from .location import resolve_folder
from .model import Backbone
from .seen_bases import holds, known_folder


def files_of(backbone: Backbone) -> Path:
    """Where the files of a loaded base are now.

    `spacy train` empties its output folder, from which a pipeline may have been loaded.

    RAISES (BaseError): They cannot be found.
    """
    with contextlib.suppress(BaseError, OSError):
        if fingerprint(backbone.folder) == backbone.fingerprint:
            return backbone.folder
    base, origin = backbone.base, backbone.origin
    known = known_folder(
        backbone.fingerprint, origin.arithmetic if backbone.fingerprint == origin.fingerprint else None
    )
    if known is not None:
        return known
    if backbone.stored_as is None:
        with contextlib.suppress(BaseError, OSError):
            folder = resolve_folder(base.name, origin.commit or base.revision)
            if holds(folder, origin.fingerprint, origin.arithmetic):
                return folder
    raise BaseError(
        f"the base was loaded from {backbone.folder}, which no longer exists, and no other copy of it was found under "
        f'{base.name!r}. Restore it, or save with store_base = "reference".'
    )


def find_base(record: dict[str, Any], name: str | None = None, revision: str | None = None) -> Path:
    """The folder of a stored backbone's base, for a backbone stored as "reference", without its base.

    name (str | None): A folder or hub id in place of the recorded one.
    revision (str | None): The hub revision of `name`; by default, for the recorded name, the commit used in training.
    RAISES (BaseError): It cannot be found.
    """
    block = record["base"]
    known = known_folder(block["fingerprint"], block.get("arithmetic"))
    if name is None and known is not None:
        return known
    if name is None and revision in (None, block["revision"]):
        revision = block["commit"] or block["revision"]
    made_with = block.get("made_with") if name is None else None
    try:
        return resolve_folder(name or block["name"], revision, hub=made_with is None)
    except BaseError as error:
        if made_with is None:
            raise
        raise BaseError(f"{error} It can be made again with: {made_with}") from error
