"""One step of thinc's optimizer over many parameters at once, with the same result as one step per parameter.

An adapter has hundreds of small tensors. A call of the optimizer costs about as much for one of them as for all, and on
a GPU each call waits for the device.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from thinc.api import Optimizer
from torch import Tensor, nn

from ..errors import SettingError
from .base_device import to_base, to_thinc


def step_all(
    optimizer: Optimizer | Callable[..., Any],
    key: tuple[int, str],
    parameters: Mapping[str, nn.Parameter],
    lr_scale: float,
    device: str | None = None,
) -> None:
    """Update the parameters from their gradients, and clear the gradients.

    The optimizer gets all parameters as one long row under `key`. Gradients are clipped here, per tensor as thinc does.
    Averages are also available under (key[0], name), each as a view of its part of the row.

    optimizer (Optimizer | Callable): A function, as `nlp.rehearse` passes one, gets the parameters one by one, to
        change them in place now or later. It does not support `lr_scale`.
    key (tuple[int, str]): The key of the optimizer's state; its number is also used with the names of the parameters.
    parameters (Mapping): The parameters by name. Those without a gradient are not changed.
    lr_scale (float): Factor of the optimizer's learning rate.
    device (str | None): The setting `device` of the base; None: where the optimizer computes.
    RAISES (SettingError): A function would get copies of parameters, as these are on another device.
    """
    chosen = {name: value for name, value in parameters.items() if value.grad is not None}
    if not chosen:
        return
    if not isinstance(optimizer, Optimizer):
        elsewhere = next((value.device for value in chosen.values() if device and value.device.type != "cpu"), None)
        if elsewhere is not None:
            raise SettingError(
                f"device = {device!r} cannot be used by nlp.rehearse, which changes weights in place where spaCy "
                f"computes, and these are on {str(elsewhere)!r}. Load the pipeline with device = null."
            )
        for name, value in chosen.items():
            assert value.grad is not None
            optimizer((key[0], name), to_thinc(value.data, device), to_thinc(value.grad, device))
            value.grad = None
        return
    if len(chosen) < len(parameters):
        # Else the assignment of states to parameters would change from step to step.
        for name, value in chosen.items():
            _step(optimizer, (key[0], name), [value], lr_scale, device)
        return
    values = list(chosen.values())
    _step(optimizer, key, values, lr_scale, device)
    name_averages(optimizer, key, chosen)


def _step(
    optimizer: Optimizer, key: tuple[int, str], values: list[nn.Parameter], lr_scale: float, device: str | None
) -> None:
    gradients: list[Tensor] = [value.grad for value in values]  # type: ignore[misc]
    weights = [value.data for value in values]
    with torch.no_grad():
        if optimizer.L2 and not optimizer.L2_is_weight_decay:
            gradients = list(torch._foreach_add(gradients, torch._foreach_mul(weights, optimizer.L2)))
        if optimizer.grad_clip:
            clip_each(gradients, optimizer.grad_clip)
        row, gradient = (torch.cat([part.flatten() for part in parts]) for parts in (weights, gradients))
        with _already_done(optimizer):
            changed, _ = optimizer(key, to_thinc(row, device), to_thinc(gradient, device), lr_scale=lr_scale)
        parts = to_base(changed, row).split([value.numel() for value in values])
        torch._foreach_copy_(weights, [part.view_as(value) for part, value in zip(parts, values, strict=True)])
    for value in values:
        value.grad = None


def clip_each(gradients: list[Tensor], most: float) -> None:
    """Clip each gradient to a norm of at most `most`, in place and without waiting for the device."""
    norms = torch.stack(torch._foreach_norm(gradients))
    factors = torch.where(norms >= most, most / norms, 1.0)
    torch._foreach_mul_(gradients, list(factors.unbind()))


@contextmanager
def _already_done(optimizer: Optimizer) -> Iterator[None]:
    """Keep the optimizer from clipping and from adding the L2 penalty that comes before: both are done already."""
    clip, penalty = optimizer.grad_clip, optimizer.L2
    optimizer.grad_clip = 0.0
    if not optimizer.L2_is_weight_decay:
        optimizer.L2 = 0.0
    try:
        yield
    finally:
        optimizer.grad_clip, optimizer.L2 = clip, penalty


def name_averages(optimizer: Optimizer, key: tuple[int, str], parameters: Mapping[str, nn.Parameter]) -> None:
    """Make each parameter's part of the row of averages available under its own name.

    This is done if there is such a row and no other average of that name. The optimizer changes the row in place, so
    views of it stay valid.
    """
    averages: dict[Any, Any] = optimizer.averages or {}
    if key not in averages:
        return
    start = 0
    for name, value in parameters.items():
        end = start + value.numel()
        if (key[0], name) not in averages:
            averages[key[0], name] = averages[key][start:end].reshape(tuple(value.shape))
        start = end
