"""Verifying that a stored pipeline is complete and that its base is the one it was trained on, to the last byte."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spacy.util import load_config, load_model_from_path

from ..backbone import changes_of, find_base, fingerprint, full_digest, read_record
from ..errors import BaseError, SettingError, StorageError
from ..files import check_seal
from ..pipeline.config_blocks import billm_blocks


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    what (str): What was checked.
    problem (str | None): The problem found; None if there is none.
    """

    what: str
    problem: str | None = None


def verify(folder: Path, base: str | None = None, progress: bool = False) -> Iterator[Finding]:
    """Check a stored pipeline and the whole of its bases.

    folder (Path): The pipeline.
    base (str | None): A folder or hub id in place of the one that the pipeline names.
    progress (bool): Show a progress bar while a base is read.
    YIELDS (Finding): One per check, in order.
    RAISES (ValueError): It is not a pipeline with a billm_transformer.
    """
    names = list(billm_blocks(load_config(folder / "config.cfg")))
    for name in names:
        yield from _verify_component(folder / name, name, base, progress)
    what = "the rest of the pipeline loads"
    try:
        load_model_from_path(folder, exclude=names)
    except Exception as error:
        # Each component reads its files in its own way.
        yield Finding(what, f"{type(error).__name__}: {error}. Copy the pipeline again.")
    else:
        yield Finding(what)


def _verify_component(folder: Path, name: str, base: str | None, progress: bool) -> Iterator[Finding]:
    try:
        check_seal(folder)
        record = read_record(folder)
    except StorageError as error:
        yield Finding(f"component {name}", str(error))
        return
    yield Finding(f"component {name}: every file is as it was saved")
    block = record["base"]
    if record["store_base"] != "reference":
        yield Finding(f"component {name}: its base is inside ({record['store_base']})")
        return
    what = f"base {base or block['name']} of {name}"
    try:
        base_folder = find_base(record, base)
        if fingerprint(base_folder) != block["fingerprint"]:
            raise BaseError(
                f"{base_folder} holds another base: its fingerprint is {fingerprint(base_folder)}, the pipeline was "
                f"trained on {block['fingerprint']}."
            )
        changes = changes_of(record, base_folder)
        digest = full_digest(base_folder, progress)
    except (BaseError, SettingError) as error:
        yield Finding(what, str(error))
        return
    if digest != block["digest"]:
        yield Finding(
            what, f"the weights in {base_folder} are altered: their digest is {digest}, not {block['digest']}."
        )
    elif changes:
        yield Finding(what, f"{base_folder / 'config.json'} is not what it was in training: {'; '.join(changes)}.")
    else:
        yield Finding(f"{what}: every byte of {base_folder} is as it was in training")
