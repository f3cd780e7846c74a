"""The limit: the model's own arithmetic on pieces that already exist, packed into blocks without padding."""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor

BLOCKS = (16, 32, 64, 128, 256)
ITEMS = {"cpu": (256, 512, 1024, 2048), "cuda": (4096, 16384, 65536)}
TRIED, TIMES = 4096, 3


def blocks(pieces: Tensor, length: int, items: int) -> list[Tensor]:
    """All pieces in blocks of one length, several blocks at once; the remaining pieces are a block of their own.

    pieces (Tensor): The piece ids, shape (pieces,).
    """
    whole = len(pieces) // length * length
    parts = list(pieces[:whole].view(-1, length).split(max(1, items // length))) if whole else []
    return [*parts, pieces[None, whole:]] if whole < len(pieces) else parts


def run_forward(decoder: Any, parts: Iterable[Tensor]) -> None:
    """Run only the decoder, as transformers does."""
    with torch.inference_mode():
        for part in parts:
            decoder(input_ids=part, use_cache=False)


def run_training(decoder: Any, parts: Iterable[Tensor]) -> None:
    """Run a forward and a backward pass."""
    for part in parts:
        decoder(input_ids=part, use_cache=False).last_hidden_state.sum().backward()


def best_blocks(decoder: Any, pieces: Tensor, longest: int, run: Any) -> tuple[int, int]:
    """The length of blocks and the number of pieces at once with which `run` is fastest, tried on some of the pieces.

    longest (int): The number of positions that the model was made for.
    """
    sample = pieces[:TRIED]
    device = pieces.device.type
    found: dict[tuple[int, int], float] = {}
    lengths: Sequence[int] = [length for length in BLOCKS if length <= longest]
    for length, items in product(lengths, ITEMS.get(device, ITEMS["cuda"])):
        parts = blocks(sample, length, items)
        run(decoder, parts[:1])
        # The best of several times, because other load on the machine can only add to it.
        found[length, items] = min(_seconds(lambda parts=parts: run(decoder, parts), device) for _ in range(TIMES))
    return min(found, key=lambda key: found[key])


def _seconds(run: Callable[[], None], device: str) -> float:
    clock = perf_counter if device == "cuda" else process_time
    begun = clock()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - begun
