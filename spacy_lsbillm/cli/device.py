"""The device of a command."""

import torch

from ..errors import SettingError


def device_of(gpu_id: int) -> torch.device:
    """The device of `--gpu-id`. A missing GPU is never replaced by the CPU.

    RAISES (SettingError): There is no such GPU.
    """
    if gpu_id < 0:
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu_id >= count:
        raise SettingError(f"--gpu-id {gpu_id}: torch sees {count} GPUs here. Use -1 for the CPU.")
    return torch.device("cuda", gpu_id)
