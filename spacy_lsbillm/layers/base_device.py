"""Where the base computes. thinc needs CuPy to use a GPU, and the base does not: it may be on one while spaCy and the
heads are on the CPU, and vectors and their gradients cross once a batch."""

import torch
from thinc.api import get_current_ops, get_torch_default_device, torch2xp, xp2torch
from thinc.types import FloatsXd
from torch import Tensor

from ..errors import SettingError

CPU, CUDA, MPS = "cpu", "cuda", "mps"
DEVICES = (CUDA, MPS, CPU)


def check_device(name: str | None) -> None:
    """RAISES (SettingError): There is no such setting."""
    if name is not None and name not in DEVICES:
        raise SettingError(
            f"device = {name!r} is not allowed. Use one of: {', '.join(map(repr, DEVICES))}; or null, which is where "
            f"spaCy computes. (Of several GPUs, the environment variable CUDA_VISIBLE_DEVICES chooses.)"
        )


def present() -> list[str]:
    """The kinds of devices that torch sees here."""
    found = {CUDA: torch.cuda.is_available(), MPS: torch.backends.mps.is_available(), CPU: True}
    return [name for name in DEVICES if found[name]]


def device_for(name: str | None) -> torch.device:
    """The device of a base.

    name (str | None): One of `DEVICES`; None: where thinc computes.
    RAISES (SettingError): It is not here: nothing falls back to another.
    """
    if name is None:
        return get_torch_default_device()
    here = present()
    if name not in here:
        raise SettingError(
            f"device = {name!r} is not here: torch {torch.__version__} sees {', '.join(map(repr, here))}. Set one of "
            f"these, or null: of a trained pipeline in its config.cfg, or while it is loaded, with "
            f'spacy.load(…, config={{"components": {{"transformer": {{"model": {{"device": None}}}}}}}}).'
        )
    # With its number, so that two names of one device are the same.
    return torch.device(CUDA, torch.cuda.current_device()) if name == CUDA else torch.device(name)


def to_thinc(tensor: Tensor, name: str | None) -> FloatsXd:
    """A tensor as an array where thinc computes: the same memory if that is where it is, else a copy.

    name (str | None): The setting.
    """
    return torch2xp(tensor, ops=None if name is None else get_current_ops())


def to_base(array: FloatsXd, like: Tensor) -> Tensor:
    """An array of thinc as a tensor on the device of another."""
    return xp2torch(array).to(like.device)
