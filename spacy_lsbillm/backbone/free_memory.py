"""How much memory is free: on a GPU, on the machine and in a container."""

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path

import torch

# Files with a container's memory limit and use, for cgroup versions 2 and 1.
CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = (
    (CGROUP / "memory.max", CGROUP / "memory.current"),
    (CGROUP / "memory/memory.limit_in_bytes", CGROUP / "memory/memory.usage_in_bytes"),
)


def free_memory(device: torch.device) -> int | None:
    """The free memory of a device in bytes; None if the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return _left_elsewhere()
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    limits = [*(number * 1024 for number in kilobytes[:1]), *_left_in_container()]
    return min(limits, default=None)


def _left_elsewhere() -> int | None:
    """The free memory of a system that is not Linux, through psutil, which accelerate and peft need as well."""
    try:
        return int(importlib.import_module("psutil").virtual_memory().available)
    except (ImportError, OSError):
        return None


def _left_in_container() -> Iterator[int]:
    """Bytes left up to the limit of each control group that has one. Cached file content counts as free."""
    for limit, used in CGROUP_FILES:
        with contextlib.suppress(OSError, ValueError):
            folder = limit.parent
            stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
            cached = int(stat.get("inactive_file", 0))
            # Version 2 says "max" if there is no limit.
            yield int(limit.read_text(encoding="ascii")) - int(used.read_text(encoding="ascii")) + cached
