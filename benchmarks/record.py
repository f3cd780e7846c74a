"""The circumstances that every result file records beside its numbers."""

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
    """The versions of the packages, the machine and the commit.

    device (str | None): The device of the base, if it is not the CPU.
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


def config_text(config: Config, *outside: str) -> str:
    """The text of a config in a result file: files of this repository are named relative to its root.

    outside (str): Other paths in the config, of which only the last part is kept: where they are on this machine says
        nothing.
    """
    text = config.to_str(interpolate=False).replace(f"{ROOT}{os.sep}", "")
    for path in outside:
        text = text.replace(path, portable_name(path))
    return text


def portable_name(path: str) -> str:
    """The name of a folder in a result file: relative to the repository's root, or its own name if it is elsewhere."""
    return path if not Path(path).is_absolute() else Path(path).name


def commit() -> str:
    """The commit of this repository, with a plus sign if files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--abbrev=12", "--dirty=+"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write a result file atomically, so that a killed process leaves no partial file."""
    write_text(path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def read_result(path: Path) -> dict[str, Any]:
    """Read what `write_result` wrote."""
    return json.loads(path.read_text(encoding="utf8"))
