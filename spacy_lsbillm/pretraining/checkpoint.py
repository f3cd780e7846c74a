"""Checkpoints of a run: complete at any moment, and read without pickle."""

import contextlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import StorageError
from ..files import replaced_file

FILE = "checkpoint.pt"


@dataclass
class Progress:
    """How far a run has come.

    step (int): Finished optimizer steps.
    seconds (float): The time spent in training, in all parts of the run.
    curve (list[list[float]]): One row per checkpoint, in the order of `COLUMNS`.
    parts (int): How often the run was started.
    """

    step: int = 0
    seconds: float = 0.0
    curve: list[list[float]] = field(default_factory=list)
    parts: int = 0


def save_checkpoint(
    folder: Path,
    settings: dict[str, Any],
    weights: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Save the state of a run. A kill at any moment leaves the old checkpoint or the new one."""
    state = {
        "settings": settings,
        "model": dict(weights),
        "optimizer": optimizer.state_dict(),
        "progress": vars(progress),
    }
    with replaced_file(folder / FILE) as partial:
        torch.save(state, partial)


def load_checkpoint(
    folder: Path, settings: dict[str, Any], weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> Progress:
    """Restore a saved state.

    weights (Mapping): The tensors to write into.
    RAISES (StorageError): The checkpoint is damaged, or belongs to a run with other settings.
    """
    path = folder / FILE
    with _readable(path):
        _check_sums(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        saved = state["settings"]
        check_settings(path, saved, settings)
        _put_back(state["model"], weights)
        optimizer.load_state_dict(state["optimizer"])
        return Progress(**state["progress"])


def _put_back(saved: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Copy saved tensors into the model's.

    RAISES (ValueError): One is missing on either side, or has another shape.
    """
    apart = sorted(saved.keys() ^ weights.keys())
    apart += [name for name in saved.keys() & weights.keys() if saved[name].shape != weights[name].shape]
    if apart:
        raise ValueError(f"its tensor {apart[0]!r} is not that of the model")
    with torch.no_grad():
        for name, tensor in weights.items():
            tensor.copy_(saved[name])


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Convert every error of reading a checkpoint inside the context.

    RAISES (StorageError): Reading it fails.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        # torch, zipfile and the unpickler each raise errors of their own.
        raise StorageError(f"the checkpoint {path} cannot be read: {error}. Remove it to start again.") from error


def _check_sums(path: Path) -> None:
    """Check the checksums in what `torch.save` writes, a zip file: `torch.load` ignores them.

    RAISES (ValueError): A checksum is wrong.
    """
    # A pipe or a device could be read forever.
    if not path.is_file():
        raise ValueError("it is not a file")
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"its part {damaged!r} is altered")


def check_settings(path: Path, saved: dict[str, Any], settings: dict[str, Any]) -> None:
    """Check that a run is continued with the settings that it was begun with.

    RAISES (StorageError): They differ.
    """
    differing = [
        f"{section}.{name} was {saved.get(section, {}).get(name)!r} and is {value!r}"
        for section, values in settings.items()
        for name, value in values.items()
        if saved.get(section, {}).get(name) != value
    ]
    if differing:
        raise StorageError(
            f"{path} belongs to a run with other settings: {'; '.join(differing)}. Use the same, or another work "
            f"folder."
        )
