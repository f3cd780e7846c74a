"""The hardware, arithmetic and library versions of a run."""

import platform

import torch
import transformers

from ..about import __version__
from ..errors import SettingError


def arithmetic(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of the arithmetic: the requested one, or with "auto" bfloat16 where the hardware supports it.

    RAISES (SettingError): The GPU does not support bfloat16.
    """
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        if precision == "bfloat16" and not fast:
            raise SettingError('precision = "bfloat16": this GPU does not support it. Use "float32".')
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if precision == "bfloat16" or (precision == "auto" and fast) else torch.float32


def hardware(device: torch.device) -> str:
    """Describe a device: the name of a GPU, or the threads and instructions of a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"


def versions() -> dict[str, str]:
    """The versions of this package, of Python and of the libraries that decide what a run computes."""
    return {
        "spacy-lsbillm": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
