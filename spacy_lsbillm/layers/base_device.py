"""Where the base computes.

thinc needs CuPy to use a GPU, but the base does not: it may be on a GPU while spaCy and the heads are on the CPU.
Vectors and their gradients are then copied once per batch.
"""

import torch
from thinc.api import get_current_ops, get_torch_default_device, torch2xp, xp2torch
from thinc.types import FloatsXd
from torch import Tensor

from ..errors import SettingError
from ..values import check_choice

CPU, CUDA, MPS = "cpu", "cuda", "mps"
DEVICES = (CUDA, MPS, CPU)


def check_device(name: str | None) -> None:
    """Validate the setting `device`.

    RAISES (SettingError): It is neither null nor one of `DEVICES`.
    """
    if name is not None:
        several = "to choose one of several GPUs, set the environment variable CUDA_VISIBLE_DEVICES"
        check_choice("device", name, DEVICES, also=f"; or null for the device that spaCy uses ({several})")


def present() -> list[str]:
    """The kinds of devices that torch can use here, such as "cpu" and "cuda"."""
    available = {CUDA: torch.cuda.is_available(), MPS: torch.backends.mps.is_available(), CPU: True}
    return [name for name in DEVICES if available[name]]


def device_for(name: str | None) -> torch.device:
    """The torch device of a base with this setting.

    name (str | None): One of `DEVICES`; None: where thinc computes.
    RAISES (SettingError): This machine does not have it. There is no fallback to another device.
    """
    if name is None:
        return get_torch_default_device()
    here = present()
    if name not in here:
        raise SettingError(
            f"device = {name!r} is not available: torch {torch.__version__} sees {', '.join(map(repr, here))}. Set one "
            f"of these, or null. For a trained pipeline, do so in its config.cfg, or when you load it, with "
            f'spacy.load(…, config={{"components": {{"transformer": {{"model": {{"device": None}}}}}}}}).'
        )
    # With its index, so that two names of one device compare as equal.
    return torch.device(CUDA, torch.cuda.current_device()) if name == CUDA else torch.device(name)


def to_thinc(tensor: Tensor, name: str | None) -> FloatsXd:
    """Convert a tensor to an array on thinc's device.

    It shares the tensor's memory if both are there, else it is a copy.

    name (str | None): The setting `device`.
    """
    return torch2xp(tensor, ops=None if name is None else get_current_ops())


def to_base(array: FloatsXd, like: Tensor) -> Tensor:
    """Convert an array of thinc to a tensor on the device of another tensor."""
    return xp2torch(array).to(like.device)
