"""Pooling the backbone's states into vectors on its own device: one per token, or one per piece."""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from ..alignment import Batch
from ..backbone import Backbone
from .base_device import MPS

OUTPUTS = TOKENS, PIECES = "tokens", "pieces"
# Devices on which some versions of torch lack `embedding_bag`.
WITHOUT_BAGS = (MPS,)


def vectors_of(backbone: Backbone, batch: Batch, output: str) -> Tensor:
    """Run the backbone and collect the states of pieces, or their means per token.

    This takes one operation per micro-batch on the device.

    output (str): "tokens" or "pieces".
    RETURNS (Tensor): float32, shape (tokens or pieces, width); zeros for tokens without pieces.
    RAISES (BaseError): The base's files were changed while in use, see `WatchedFiles`.
    """
    backbone.shared.check_files()
    device = backbone.device
    of_tokens = output == TOKENS
    size = len(batch.pieces_per_token if of_tokens else batch.ids)
    # While another thread loads a base, torch's default dtype is that of the base.
    rows = torch.zeros((size, backbone.width), dtype=torch.float32, device=device)
    all_sums = batch.sums_of_tokens() if of_tokens else batch.sums_of_pieces()
    # States are added to the result as they come, so that a long document needs no memory for all of them.
    for part, summed in zip(batch.micro_batches, all_sums, strict=True):
        positions = None if part.positions is None else torch.from_numpy(part.positions).to(device)
        ids, mask = torch.from_numpy(part.ids).to(device), torch.from_numpy(part.mask).to(device)
        states = backbone.states(ids, mask, positions).flatten(0, 1).float()
        slots, sizes, targets = (torch.from_numpy(x).to(device) for x in (summed.slots, summed.sizes, summed.targets))
        if device.type in WITHOUT_BAGS:
            rows.index_add_(0, targets.repeat_interleave(sizes), states[slots])
            continue
        sums = embedding_bag(slots, states, sizes.cumsum(0) - sizes, mode="sum")
        rows.index_add_(0, targets, sums)
    if not of_tokens:
        return rows
    counts = torch.from_numpy(batch.pieces_per_token).to(device)
    return rows.div_(counts.clamp(min=1)[:, None])
