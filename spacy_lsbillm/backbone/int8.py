"""Weights in eight bits, for prediction on a CPU: torch's own kernel for linear layers (oneDNN's), and an embedding.

It is the kernel that torch's compiler uses. That of `torch.ao.quantization`'s dynamic layers (FBGEMM) is as fast, but
takes tensors of a kind that torch is to lose: https://github.com/pytorch/pytorch/issues/184982.

Each row of a weight has one scale, by which its largest number becomes 127. Each state has a scale of its own, too,
which is found when it comes. So a piece's result depends on no other piece of its batch, and the few states that are a
hundred times as large as others (many models make one of the first piece) cost the others nothing: with one scale for
the batch these would be rounded away.

States have seven bits. CPUs without VNNI add two products in 16 bits, and 2 * 255 * 127 overflows there, while
2 * 127 * 127 does not. CPUs that could do with eight get seven as well, so that a pipeline computes the same on all.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BaseError

# Of weights, to both sides of 0.
LEVELS = 127
# Of states, to both sides of ZERO: from 1 to 127.
STATE_LEVELS, ZERO = 63, 64
# Smaller than any state that matters: a row of zeros has no scale.
SMALLEST = 1e-30
# Half a level more, as what follows cuts off.
_ZERO = torch.tensor(ZERO + 0.5)


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight in eight bits.

    weight (Tensor): float32, shape (out, in).
    RETURNS (tuple): The numbers, int8 of shape (out, in), and the scale of each row, float32 of shape (out,).
    """
    scale = weight.abs().amax(1).clamp_min(SMALLEST) / LEVELS
    return (weight / scale[:, None]).round_().clamp_(-LEVELS, LEVELS).to(torch.int8), scale


def check_kernel() -> None:
    """RAISES (BaseError): This build of torch has no such kernel."""
    if not torch.backends.mkldnn.is_available():
        raise BaseError(
            "this build of torch has no oneDNN (torch.backends.mkldnn.is_available() is false), which multiplies "
            "weights in eight bits. Use a build that has it, or the pipeline as it was before `lsbillm quantize`."
        )


class Int8Linear(nn.Module):
    """A linear layer for prediction, over states in float32.

    weight (Tensor): int8, shape (out, in).
    scale (Tensor): Of each row, shape (out,).
    bias (Tensor | None): Shape (out,).
    """

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None = None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.nbytes = weight.nbytes + scale.nbytes
        self._packed = _Packed(weight, scale)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, states: Tensor) -> Tensor:
        """
        states (Tensor): float32, shape (..., in). What is not finite makes its row so.
        RETURNS (Tensor): Shape (..., out).
        """
        size = torch.linalg.vector_norm(states, torch.inf, dim=-1, keepdim=True).clamp_min(SMALLEST)
        numbers = torch.addcmul(_ZERO, states, STATE_LEVELS / size).to(torch.uint8)
        packed, scale = self._packed, 1 / STATE_LEVELS
        after: tuple[str, list[float], str] = ("none", [], "")
        result: Tensor = torch.ops.onednn.qlinear_pointwise(
            numbers, scale, ZERO, packed.weight, packed.scale, packed.zeros, None, 1.0, 0, torch.float32, *after
        )
        return result.mul_(size) if self.bias is None else torch.addcmul(self.bias, result, size)


class _Packed:
    """A weight in the kernel's own order. Copies of a module share it."""

    def __init__(self, weight: Tensor, scale: Tensor):
        self.weight = torch.ops.onednn.qlinear_prepack(weight, None)
        self.scale = scale
        self.zeros = torch.zeros(len(scale), dtype=torch.int64)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Packed":
        return self


class Int8Embedding(nn.Module):
    """An embedding for prediction.

    weight (Tensor): int8, shape (rows, width).
    scale (Tensor): Of each row, shape (rows,).
    factor (float): Of all vectors: some families have one.
    """

    def __init__(self, weight: Tensor, scale: Tensor, factor: float = 1.0):
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale * factor, requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        """
        ids (Tensor): Shape (...).
        RETURNS (Tensor): float32, shape (..., width).
        """
        return self.weight[ids].to(torch.float32).mul_(self.scale[ids].unsqueeze(-1))


class NoHead(nn.Module):
    """In the place of a language-model head, which labels need not.

    width (int): Of the states.
    """

    def __init__(self, width: int):
        super().__init__()
        self.in_features = width

    def forward(self, states: Tensor) -> Tensor:
        """RAISES (BaseError): Always."""
        raise BaseError(
            "a pipeline in eight bits has no language-model head. Use the pipeline as it was before `lsbillm quantize`."
        )


def weight_bytes(model: nn.Module) -> int:
    """Bytes in memory of a model's weights, without an adapter beside them."""
    frozen = sum(parameter.nbytes for parameter in model.parameters() if not parameter.requires_grad)
    return frozen + sum(module.nbytes for module in model.modules() if isinstance(module, Int8Linear))
