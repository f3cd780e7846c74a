"""Checkpoints of a training on disk: complete or absent, the last two kept, none of it pickled."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from spacy.training.loop import DIR_MODEL_BEST
from torch import Tensor

from ..errors import StorageError
from ..files import as_os_error, check_seal, replaced_folder, write_seal

CHECKPOINTS = "checkpoints"
RUN, TENSORS = "run.json", "tensors.safetensors"
KEPT = 2


@dataclass
class Evaluation:
    """A row of the training's table.

    losses (dict[str, float]): Losses by component, summed since the previous row.
    score (float): Score, weighted by `training.score_weights`.
    other_scores (dict): All scores.
    """

    step: int
    losses: dict[str, float]
    score: float
    other_scores: dict[str, Any]


@dataclass
class Checkpoint:
    """The state of a training between two steps.

    step (int): The last finished step.
    identity (dict): What must be the same for the run to continue, see `identity_of`.
    evaluations (list[Evaluation]): The evaluations so far.
    batches (str): A digest of the texts of all batches so far, in order.
    seconds (float): Seconds of training so far.
    every (dict): The fields of the `Interval` between checkpoints.
    ranks (int): The number of processes.
    facts (dict): Plain values of the pipeline's state, see `TrainingState`.
    tensors (dict): Its tensors, under "state/"; the random generators, under "random/"; their states before batches
        were drawn, under "draws/STEP/"; losses since the last row, under "losses/".
    """

    step: int
    identity: dict[str, Any]
    evaluations: list[Evaluation]
    batches: str
    seconds: float
    every: dict[str, float]
    ranks: int
    facts: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors with a prefix, by the rest of their names."""
        return {name.removeprefix(prefix): x for name, x in self.tensors.items() if name.startswith(prefix)}


def save_checkpoint(output: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint into its own folder under `output`, and remove all but the last two.

    A copy of the current `model-best` belongs to it, as hard links if the file system has them.

    RAISES (OSError): It cannot be written, for lack of space for example. Nothing of it is left, and the previous
        checkpoint remains.
    RAISES (StorageError): Something else is in its place, or the scores cannot be stored.
    """
    folder = output / CHECKPOINTS / f"step-{checkpoint.step:09d}"
    facts = {key: value for key, value in vars(checkpoint).items() if key != "tensors"}
    facts["evaluations"] = [_plain(asdict(row)) for row in checkpoint.evaluations]
    try:
        # Not with srsly, which rounds numbers.
        text = json.dumps(facts)
    except (TypeError, ValueError) as error:
        raise StorageError(f"a score of the training cannot be stored in a checkpoint: {error}.") from error
    with replaced_folder(folder, known_by=RUN) as partial:
        # Contiguous copies: safetensors refuses tensors that share memory.
        tensors = {name: value.contiguous().clone() for name, value in checkpoint.tensors.items()}
        with as_os_error():
            save_file(tensors, partial / TENSORS)
        (partial / RUN).write_text(text, encoding="utf8")
        best = output / DIR_MODEL_BEST
        if best.is_dir():
            shutil.copytree(best, partial / DIR_MODEL_BEST, copy_function=_link)
        write_seal(partial, [partial / RUN, partial / TENSORS])
    remove_old_checkpoints(output)
    return folder


def remove_old_checkpoints(output: Path) -> None:
    """Remove all but the last two checkpoints, and what a kill during a write has left."""
    for old in [*_folders(output)[KEPT:], *(output / CHECKPOINTS).glob(".step-*")]:
        shutil.rmtree(old, ignore_errors=True)


def load_last_checkpoint(output: Path, tell: Callable[[str], None]) -> tuple[Checkpoint, Path]:
    """Load the last complete checkpoint.

    tell (Callable): Called with a message about an incomplete one, in whose place the previous one is used.
    RETURNS (tuple): The checkpoint, and its folder.
    RAISES (StorageError): There is no complete one.
    """
    folders = _folders(output)
    if not folders:
        raise StorageError(
            f"there is no checkpoint in {output / CHECKPOINTS} to continue from: start without --resume, with "
            f"--checkpoint-every 100 for example."
        )
    for folder in folders:
        try:
            return _read(folder), folder
        except StorageError as error:
            tell(f"{error} The previous one is used, if there is one.")
    raise StorageError(f"none of the checkpoints in {output / CHECKPOINTS} is complete: start again without --resume.")


def restore_best(folder: Path, output: Path) -> None:
    """Restore `model-best` as it was when the checkpoint in a folder was written."""
    best, partial = output / DIR_MODEL_BEST, output / f".{DIR_MODEL_BEST}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    if not (folder / DIR_MODEL_BEST).is_dir():
        shutil.rmtree(best, ignore_errors=True)
        return
    shutil.copytree(folder / DIR_MODEL_BEST, partial, copy_function=_link)
    shutil.rmtree(best, ignore_errors=True)
    partial.replace(best)


def has_checkpoints(output: Path) -> bool:
    """Whether a folder contains checkpoints of a run."""
    return bool(_folders(output))


def _folders(output: Path) -> list[Path]:
    """The folders of checkpoints, the last one first."""
    return sorted((output / CHECKPOINTS).glob("step-*"), reverse=True)


def _read(folder: Path) -> Checkpoint:
    """Read a checkpoint. RAISES (StorageError): It is not complete."""
    check_seal(folder, since="since the checkpoint was written", advice="it cannot be used")
    try:
        facts = json.loads((folder / RUN).read_text(encoding="utf8"))
        facts["evaluations"] = [Evaluation(**row) for row in facts["evaluations"]]
        return Checkpoint(**facts, tensors=load_file(folder / TENSORS))
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise StorageError(f"the checkpoint {folder} cannot be read: {error}.") from error


def _link(source: str, target: str) -> None:
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copy2(source, target)


def _plain(value: Any) -> Any:
    """Numbers of numpy as Python's own, which can be written as JSON."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.item() if hasattr(value, "item") else value
