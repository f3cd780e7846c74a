"""Removal of the causal mask, layer by layer, without copies of model classes.

A hook in front of each chosen decoder layer replaces the attention mask that the model has built for it. Nothing else
of the layer is touched, and a layer that stays causal is not touched at all: it keeps the model's own mask, sliding
windows included. A layer that was unmasked before and no longer is has a hook that does nothing.
"""

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from ..errors import BaseError
from .mask import MaskPlan

# The layers of one forward pass share one mask tensor, so its symmetric form is made once. The entry goes with the
# mask; threads have masks of their own.
_symmetric: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
# Attributes of a layer: whether it attends in both directions, and what it has hidden the future with.
BOTH_WAYS, OWN_BUFFER = "lsbillm_both_ways", "lsbillm_causal_buffer"


def symmetric_mask(mask: Tensor) -> Tensor:
    """The mask a layer has when the past's rule also holds for the future.

    A causal layer becomes fully visible; one with a sliding window sees the window on both sides. A padded position is
    one that the causal mask hides from itself: it stays hidden from all.

    mask (Tensor): What the model built, shape (batch, 1, length, length): boolean (true is visible), or floating point
        with 0 for visible and a large negative number for hidden.
    RETURNS (Tensor): The same shape and dtype.
    """
    visible = mask if mask.dtype == torch.bool else mask == 0
    real = visible.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
    both = (visible | visible.transpose(-2, -1)) & real
    if mask.dtype == torch.bool:
        return both
    hidden = torch.finfo(mask.dtype).min
    return torch.zeros_like(mask).masked_fill_(~both, hidden)


def unmask_layers(layers: Sequence[nn.Module], plan: MaskPlan, causal_buffer: str | None = None) -> None:
    """Make the layers that the plan names attend in both directions, and the others causally. A later call with another
    plan takes the place of this one.

    layers (Sequence[Module]): The decoder layers, the first is next to the input.
    causal_buffer (str | None): A tensor of each layer's own that hides the future where it is false.
    RAISES (BaseError): A layer takes no attention mask, so that it cannot be unmasked this way.
    """
    if len(layers) != len(plan.unmasked):
        raise BaseError(f"the mask plan is for {len(plan.unmasked)} layers, the model has {len(layers)}.")
    for layer, unmasked in zip(layers, plan.unmasked, strict=True):
        if unmasked == getattr(layer, BOTH_WAYS, False):
            continue
        if not hasattr(layer, BOTH_WAYS):
            parameters = list(inspect.signature(layer.forward).parameters)
            if "attention_mask" not in parameters:
                raise BaseError(f"{type(layer).__name__} takes no attention mask and cannot be unmasked.")
            swap = partial(_swap_mask, position=parameters.index("attention_mask"))
            layer.register_forward_pre_hook(swap, with_kwargs=True)
        # On the layer itself, so that a copy of the model has its own.
        setattr(layer, BOTH_WAYS, unmasked)
        if causal_buffer is not None:
            _switch_buffer(layer, causal_buffer, unmasked)


def _switch_buffer(layer: nn.Module, name: str, unmasked: bool) -> None:
    """Newer versions of transformers have no such buffer, and need nothing."""
    place, _, last = name.rpartition(".")
    module = layer.get_submodule(place)
    buffer = getattr(module, last, None)
    if buffer is None:
        return
    if unmasked:
        setattr(layer, OWN_BUFFER, buffer)
        setattr(module, last, torch.ones_like(buffer))
    else:
        setattr(module, last, getattr(layer, OWN_BUFFER).to(buffer.device))


def _swap_mask(
    layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, position: int
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Replace a layer's attention mask, which it gets by name or at a position."""
    if not getattr(layer, BOTH_WAYS):
        return None
    by_name = "attention_mask" in kwargs
    if not by_name and len(args) <= position:
        raise BaseError(f"{type(layer).__name__} was called without an attention mask: it would have stayed causal.")
    mask = kwargs["attention_mask"] if by_name else args[position]
    states = args[0] if args else kwargs["hidden_states"]
    changed = _both_ways(mask, states, type(layer).__name__)
    if by_name:
        return args, {**kwargs, "attention_mask": changed}
    return (*args[:position], changed, *args[position + 1 :]), kwargs


def _both_ways(mask: Any, states: Tensor, layer: str) -> Tensor:
    length = states.shape[1]
    if mask is None:
        # SDPA leaves out a plain causal mask and sets a flag instead; any mask at all turns the flag off.
        return states.new_ones((1, 1, 1, length), dtype=torch.bool)
    if isinstance(mask, Tensor) and mask.ndim == 4 and mask.shape[-1] == mask.shape[-2] == length:
        if mask not in _symmetric:
            _symmetric[mask] = symmetric_mask(mask)
        return _symmetric[mask]
    shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
    raise BaseError(
        f"{layer} got an attention mask of shape {shape}, not (batch, 1, length, length): "
        f'it cannot be unmasked. Use attention = "sdpa" or "eager", without a cache.'
    )
