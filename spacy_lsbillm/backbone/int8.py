"""Eight-bit weights for prediction on a CPU: linear layers with torch's own kernel (oneDNN's), and an embedding.

It is the kernel that torch's compiler uses. The one of `torch.ao.quantization`'s dynamic layers (FBGEMM) is as fast,
but takes a kind of tensor that torch is going to remove: https://github.com/pytorch/pytorch/issues/184982.

Each row of a weight has one scale, which maps its largest number to 127. Each state has its own scale, too, computed
during prediction. So a piece's result does not depend on other pieces of its batch, and the few states that are a
hundred times as large as others (in many models that of the first piece) do not affect the precision of the others:
with one scale per batch, those would be rounded away.

States have seven bits. CPUs without VNNI add two products in 16 bits: 2 * 255 * 127 overflows there, 2 * 127 * 127 does
not. CPUs that support eight bits use seven as well, so that a pipeline computes the same on all.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BaseError

# Levels of weights, to each side of 0.
LEVELS = 127
# Levels of states, to each side of ZERO: from 1 to 127.
STATE_LEVELS, ZERO = 63, 64
# Smaller than any state that matters: avoids a division by zero for a row of zeros.
SMALLEST = 1e-30
# Half a level is added because the conversion truncates.
_ZERO = torch.tensor(ZERO + 0.5)


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a weight to eight bits.

    weight (Tensor): float32, shape (out, in).
    RETURNS (tuple): The quantised weight, int8 of shape (out, in), and the scale of each row, float32 of shape (out,).
    """
    scale = weight.abs().amax(1).clamp_min(SMALLEST) / LEVELS
    return (weight / scale[:, None]).round_().clamp_(-LEVELS, LEVELS).to(torch.int8), scale


def check_kernel() -> None:
    """Check that torch has the kernel for eight-bit weights.

    RAISES (BaseError): This build of torch does not have it.
    """
    if not torch.backends.mkldnn.is_available():
        raise BaseError(
            "this build of torch has no oneDNN (torch.backends.mkldnn.is_available() is false), which multiplies "
            "eight-bit weights. Use a build that has it, or the pipeline from before `lsbillm quantize`."
        )


class Int8Linear(nn.Module):
    """An eight-bit linear layer for prediction, over float32 states.

    weight (Tensor): int8, shape (out, in).
    scale (Tensor): Scale of each row, shape (out,).
    bias (Tensor | None): Shape (out,).
    """

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None = None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.nbytes = weight.nbytes + scale.nbytes
        self._packed = _Packed(weight, scale)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, states: Tensor) -> Tensor:
        """Compute the layer's output.

        states (Tensor): float32, shape (..., in). A value that is not finite makes its output row not finite.
        RETURNS (Tensor): float32, shape (..., out).
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
    """A weight in the kernel's memory layout. Copies of a module share it."""

    def __init__(self, weight: Tensor, scale: Tensor):
        self.weight = torch.ops.onednn.qlinear_prepack(weight, None)
        self.scale = scale
        self.zeros = torch.zeros(len(scale), dtype=torch.int64)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Packed":
        return self


class Int8Embedding(nn.Module):
    """An eight-bit embedding for prediction.

    weight (Tensor): int8, shape (rows, width).
    scale (Tensor): Scale of each row, shape (rows,).
    factor (float): Factor of all vectors, which some families have.
    """

    def __init__(self, weight: Tensor, scale: Tensor, factor: float = 1.0):
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale * factor, requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Look up the vectors of pieces.

        ids (Tensor): Shape (...).
        RETURNS (Tensor): float32, shape (..., width).
        """
        return self.weight[ids].to(torch.float32).mul_(self.scale[ids].unsqueeze(-1))


class NoHead(nn.Module):
    """Takes the place of a language-model head, which labels do not need.

    width (int): The width of the states.
    """

    def __init__(self, width: int):
        super().__init__()
        self.in_features = width

    def forward(self, states: Tensor) -> Tensor:
        """Refuse to run.

        RAISES (BaseError): Always.
        """
        raise BaseError(
            "an eight-bit pipeline has no language-model head. Use the pipeline from before `lsbillm quantize`."
        )


def weight_bytes(model: nn.Module) -> int:
    """Bytes that a model's weights take in memory, without an adapter."""
    frozen = sum(parameter.nbytes for parameter in model.parameters() if not parameter.requires_grad)
    return frozen + sum(module.nbytes for module in model.modules() if isinstance(module, Int8Linear))
