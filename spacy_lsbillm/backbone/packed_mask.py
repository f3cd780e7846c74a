"""The causal mask of rows that hold several sequences, computed at once.

transformers computes the same mask index by index, which takes several percent of a small model's forward pass.
"""

from typing import Any

import torch
from torch import Tensor


def has_windows(config: Any) -> bool:
    """Whether some layer sees only a part of its past, so that one mask does not fit all layers."""
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        return True
    return getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)


def causal_blocks(positions: Tensor, attention: str, dtype: torch.dtype) -> Tensor:
    """The mask in which each piece sees itself and the pieces before it in its own sequence.

    A padding piece sees only itself.

    positions (Tensor): The position of each piece in its sequence, 0 for padding; shape (rows, length).
    attention (str): "sdpa" uses a boolean mask, "eager" an additive one.
    dtype (dtype): Dtype of the additive mask.
    RETURNS (Tensor): Shape (rows, 1, length, length).
    """
    sequence = (positions == 0).cumsum(dim=1)
    visible = (sequence.unsqueeze(2) == sequence.unsqueeze(1)).tril_().unsqueeze(1)
    if attention == "sdpa":
        return visible
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)
