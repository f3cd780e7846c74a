"""The state of a run on disk: whole at any moment, and read without pickle."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import StorageError
from ..files import put_in_place

FILE = "checkpoint.pt"


@dataclass
class Progress:
    """How far a run is.

    step (int): Optimizer steps done.
    seconds (float): Time in training, of all its parts.
    curve (list[list[float]]): A row a checkpoint, in the order of `COLUMNS`.
    parts (int): How often the run was started.
    """

    step: int = 0
    seconds: float = 0.0
    curve: list[list[float]] = field(default_factory=list)
    parts: int = 0


def save_checkpoint(
    folder: Path, settings: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write beside, to the disk, and rename: a kill at any moment leaves the old checkpoint or the new one."""
    partial = folder / (FILE + ".partial")
    state = {
        "settings": settings,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": vars(progress),
    }
    torch.save(state, partial)
    put_in_place(partial, folder / FILE)


def load_checkpoint(
    folder: Path, settings: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> Progress:
    """Put a saved state back.

    RAISES (StorageError): The checkpoint is damaged, or of a run with other settings.
    """
    path = folder / FILE
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        saved = state["settings"]
    except Exception as error:
        # torch, zipfile and the unpickler have errors of their own.
        raise StorageError(f"the checkpoint {path} cannot be read: {error}. Remove it to start again.") from error
    check_settings(path, saved, settings)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return Progress(**state["progress"])


def check_settings(path: Path, saved: dict[str, Any], settings: dict[str, Any]) -> None:
    """RAISES (StorageError): They differ, so that the run would not be the one that was begun."""
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
