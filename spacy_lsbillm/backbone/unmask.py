"""Removing the causal mask, layer by layer, without copies of model classes.

A hook before each unmasked decoder layer replaces the attention mask that the model has built for it. Nothing else in
the layer is changed, and a layer that stays causal keeps the model's own mask, sliding windows included. A layer that
was unmasked before but is no longer has a hook that does nothing.

An unmasked layer may see its right side with a weight below 1, for training that removes the mask gradually.
"""

import inspect
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from ..errors import BaseError
from .mask import MaskPlan

# The layers of one forward pass share one mask tensor, so its symmetric form is computed once. The entry disappears
# with the mask; threads have their own masks.
_symmetric: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
# The same with a weight of the right side.
_weighted: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
# Attributes of a layer: whether it attends in both directions, the weight of its right side, and the buffers with which
# it hides the future itself.
BOTH_WAYS, RIGHT_WEIGHT, OWN_BUFFERS = "lsbillm_both_ways", "lsbillm_right_weight", "lsbillm_causal_buffers"
# Arguments that give a layer positions that are defined only to the left.
LEFT_ALONE = ("alibi", "position_bias")


def symmetric_mask(mask: Tensor) -> Tensor:
    """The mask of a layer if the rule for the past also holds for the future.

    A causal layer becomes fully visible; one with a sliding window sees the window on both sides. A padding position
    is one that the causal mask hides from itself; it stays hidden from all.

    mask (Tensor): The mask that the model built, shape (batch, 1, length, length): boolean (true is visible), or
        floating point with 0 for visible and a large negative number for hidden.
    RETURNS (Tensor): The same shape and dtype.
    """
    visible = mask if mask.dtype == torch.bool else mask == 0
    real = visible.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
    both = (visible | visible.transpose(-2, -1)) & real
    if mask.dtype == torch.bool:
        return both
    hidden = torch.finfo(mask.dtype).min
    return torch.zeros_like(mask).masked_fill_(~both, hidden)


def weighted_mask(mask: Tensor, right_weight: float, dtype: torch.dtype) -> Tensor:
    """`symmetric_mask` with the attention scores to the right lowered by the logarithm of a weight.

    Before attention is normalised, a position to the right then counts `right_weight` times as much as the same one to
    the left.

    mask (Tensor): The mask that the model built, see `symmetric_mask`.
    right_weight (float): Above 0 and below 1.
    dtype (dtype): Dtype of the queries, to whose products with keys the mask is added.
    RETURNS (Tensor): The same shape, floating point.
    """
    visible = mask if mask.dtype == torch.bool else mask == 0
    both = symmetric_mask(visible)
    weighted = torch.zeros_like(visible, dtype=dtype).masked_fill_(both & ~visible, math.log(right_weight))
    return weighted.masked_fill_(~both, torch.finfo(dtype).min)


def weigh_right(layers: Sequence[nn.Module], weight: float) -> None:
    """Let unmasked layers see their right side with a weight.

    It goes from 0 (like causal layers) to 1 (plain unmasking, computed without weights).
    """
    for layer in layers:
        setattr(layer, RIGHT_WEIGHT, weight)


def unmask_layers(layers: Sequence[nn.Module], plan: MaskPlan) -> None:
    """Make the layers that the plan names attend in both directions, and the others causally.

    A later call replaces the plan.

    layers (Sequence[Module]): The decoder layers, from the input on.
    RAISES (BaseError): A layer takes no attention mask, so it cannot be unmasked this way.
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
        _switch_buffers(layer, unmasked)


def _switch_buffers(layer: nn.Module, unmasked: bool) -> None:
    """Replace tables with which some layers hide the future a second time, whatever their mask.

    GPT-2 in transformers 4 has them. In the table of an unmasked layer the rule for the past also holds for the future.
    """
    if unmasked:
        own = {name: buffer for name, buffer in layer.named_buffers() if _hides_the_future(buffer)}
        setattr(layer, OWN_BUFFERS, own)
        changed = {name: buffer | buffer.transpose(-2, -1) for name, buffer in own.items()}
    else:
        changed = getattr(layer, OWN_BUFFERS, {})
    for name, buffer in changed.items():
        place, _, last = name.rpartition(".")
        module = layer.get_submodule(place)
        setattr(module, last, buffer.to(getattr(module, last).device))


def _hides_the_future(buffer: Tensor) -> bool:
    if buffer.dtype not in (torch.bool, torch.uint8) or buffer.ndim < 2 or buffer.shape[-1] != buffer.shape[-2]:
        return False
    # A skeleton has no values and is never run.
    return buffer.shape[-1] > 1 and not buffer.is_meta and not bool(buffer.triu(1).any())


def _swap_mask(
    layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, position: int
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Replace a layer's attention mask, which is an argument by name or by position."""
    weight = getattr(layer, RIGHT_WEIGHT, 1.0)
    if not getattr(layer, BOTH_WAYS) or weight == 0:
        return None
    for name in LEFT_ALONE:
        if kwargs.get(name) is not None:
            raise BaseError(
                f"{type(layer).__name__} has ALiBi positions ({name}), which are only defined to the left: a piece on "
                f"the right would count more the further away it is. It cannot be unmasked"
            )
    by_name = "attention_mask" in kwargs
    if not by_name and len(args) <= position:
        raise BaseError(f"{type(layer).__name__} was called without an attention mask: it would have stayed causal.")
    mask = kwargs["attention_mask"] if by_name else args[position]
    states = args[0] if args else kwargs["hidden_states"]
    changed = _both_ways(mask, states, weight, type(layer).__name__)
    if by_name:
        return args, {**kwargs, "attention_mask": changed}
    return (*args[:position], changed, *args[position + 1 :]), kwargs


def mask_given(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The attention mask among a layer's arguments; None if there is none."""
    if "attention_mask" in kwargs:
        return kwargs["attention_mask"]
    parameters = list(inspect.signature(layer.forward).parameters)
    position = parameters.index("attention_mask") if "attention_mask" in parameters else len(args)
    return args[position] if position < len(args) else None


def _both_ways(mask: Any, states: Tensor, weight: float, layer: str) -> Tensor:
    length = states.shape[-2]
    if mask is None:
        # SDPA omits a plain causal mask and sets a flag instead; any mask turns the flag off.
        if weight == 1:
            return states.new_ones((1, 1, 1, length), dtype=torch.bool)
        return weighted_mask(states.new_ones((1, 1, length, length), dtype=torch.bool).tril(), weight, states.dtype)
    if isinstance(mask, Tensor) and mask.ndim == 4 and mask.shape[-1] == mask.shape[-2] == length:
        if weight == 1:
            if mask not in _symmetric:
                _symmetric[mask] = symmetric_mask(mask)
            return _symmetric[mask]
        if mask not in _weighted:
            _weighted[mask] = weighted_mask(mask, weight, states.dtype)
        return _weighted[mask]
    shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
    raise BaseError(
        f"{layer} got an attention mask of shape {shape}, not (batch, 1, length, length): "
        f'it cannot be unmasked. Use attention = "sdpa" or "eager", without a cache.'
    )
