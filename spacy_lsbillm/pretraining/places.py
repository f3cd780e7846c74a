"""Checking the folders of a run, so that it overwrites nothing else and is not resumed as another run."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import StorageError
from ..files import PARTIAL, SEAL, check_seal, parse_json, write_seal, write_text
from .checkpoint import FILE as CHECKPOINT
from .checkpoint import check_settings

# The file in the work folder with the settings and sources that the run was begun with.
BEGUN = "settings.json"


def claim(output: Path, work: Path, wanted: dict[str, Any], record: str, resume: bool) -> None:
    """Check that a run may write into its folders, and record in the work folder what it was begun with.

    output (Path), work (Path): The folder of the finished model, and that of tokens and checkpoint.
    wanted (dict): Settings and sources of the run, in sections.
    record (str): The name of the file that a finished run has.
    RAISES (StorageError): The folders hold something else, or another run.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        done = " It holds a finished run." if (output / record).is_file() else ""
        raise StorageError(f"the output folder {output} exists and is not empty.{done} Name another.")
    out, inside = output.resolve(), work.resolve()
    if out == inside or out in inside.parents or inside in out.parents:
        raise StorageError(f"the output folder {output} and the work folder {work} must lie apart.")
    checkpoint, begun = work / CHECKPOINT, work / BEGUN
    if not resume and os.path.lexists(checkpoint):
        raise StorageError(
            f"{checkpoint} is the checkpoint of a run. Use --resume to continue it, or another work folder."
        )
    # A run that was killed before it had begun has left nothing but the partial file.
    held = {path.name for path in work.iterdir()} - {BEGUN + PARTIAL} if work.is_dir() else set()
    if begun.is_file() and held != {BEGUN}:
        check_settings(begun, read_begun(begun), wanted)
        return
    if resume and not held:
        raise StorageError(f"there is no run in {work} to resume. Leave out --resume to start.")
    if held - {BEGUN} or (work.exists() and not work.is_dir()):
        raise StorageError(f"the work folder {work} holds something else. Name another.")
    write_text(begun, json.dumps(wanted, indent=1) + "\n")


def described(path: Path) -> list[Any]:
    """A file's name, its size and a digest of its first megabyte, as texts are large."""
    if not path.is_file():
        return [path.name, None, None]
    with path.open("rb") as file:
        return [path.name, path.stat().st_size, hashlib.sha256(file.read(2**20)).hexdigest()]


def read_begun(path: Path) -> dict[str, Any]:
    """The settings and sources that a run was begun with.

    RAISES (StorageError): They cannot be read.
    """
    try:
        content = parse_json(path.read_text(encoding="utf8"))
        if not all(isinstance(section, dict) for section in content.values()):
            raise ValueError("it does not hold sections of settings")
    except (ValueError, AttributeError) as error:
        raise StorageError(f"{path} cannot be read ({error}). Name another work folder.") from error
    return dict(content)


def check_prepared(work: Path) -> None:
    """Check that the tokenizer and the tokens have not changed since the run was begun.

    RAISES (StorageError): One has changed.
    """
    # A run that was killed while it wrote them, or begun by an older version, has no list of them yet.
    if os.path.lexists(work / SEAL):
        check_seal(work, "since the run was begun", "name another work folder to begin anew")


def seal_prepared(work: Path, paths: Iterable[Path]) -> None:
    """Write the list of the files that were made from the text, if there is none yet.

    paths (Iterable[Path]): The files.
    """
    if not (work / SEAL).exists():
        write_seal(work, paths)
