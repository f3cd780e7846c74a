"""The causal mask of rows that hold several sequences, made at once. transformers makes the same one index by index,
which takes several percent of a small model's forward pass."""

from typing import Any

import torch
from torch import Tensor


def has_windows(config: Any) -> bool:
    """Whether some layer sees a part of its past alone, so that one mask does not do for all layers."""
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        return True
    return getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)


def causal_blocks(positions: Tensor, attention: str, dtype: torch.dtype) -> Tensor:
    """Each piece sees itself and what is before it in its own sequence. A piece of padding sees itself alone.

    positions (Tensor): The place of each piece in its sequence, 0 for padding; shape (rows, length).
    attention (str): "sdpa" takes a boolean mask, "eager" one that is added.
    dtype (dtype): Of the one that is added.
    RETURNS (Tensor): Shape (rows, 1, length, length).
    """
    sequence = (positions == 0).cumsum(dim=1)
    visible = (sequence.unsqueeze(2) == sequence.unsqueeze(1)).tril_().unsqueeze(1)
    if attention == "sdpa":
        return visible
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)
