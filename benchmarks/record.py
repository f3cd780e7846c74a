"""What every result file says beside its numbers."""

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from thinc.api import Config

from spacy_lsbillm.files import write_text

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("spacy-lsbillm", "spacy", "spacy-transformers", "thinc", "torch", "transformers", "peft", "numpy")


def circumstances(device: str | None = None) -> dict[str, Any]:
    """Return versions, machine and commit.

    device (str | None): Device of the base, if it is not the CPU.
    """
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device is not None and device.startswith("cuda") else {}
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": {
            "cpu": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            **gpu,
        },
        "commit": commit(),
    }


def told(config: Config, *outside: str) -> str:
    """A config as a result file says it: files of this repository are named from its root.

    outside (str): Other paths in it, of which the last part is told alone: where they lie on this machine says nothing.
    """
    text = config.to_str(interpolate=False).replace(f"{ROOT}{os.sep}", "")
    for path in outside:
        text = text.replace(path, called(path))
    return text


def called(path: str) -> str:
    """A folder as a result file names it: from the root of this repository, or by its own name if it is elsewhere."""
    return path if not Path(path).is_absolute() else Path(path).name


def commit() -> str:
    """Of this repository, with a plus where files differ from it."""
    told = subprocess.run(
        ["git", "describe", "--always", "--abbrev=12", "--dirty=+"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or "unknown"


def write_result(path: Path, result: dict[str, Any]) -> None:
    """As a whole, so that a kill leaves no half of one."""
    write_text(path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def read_result(path: Path) -> dict[str, Any]:
    """What `write_result` wrote."""
    return json.loads(path.read_text(encoding="utf8"))
