"""The state of every random generator that a training step may draw from."""

import random
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

PYTHON, NUMPY, TORCH, CUDA = "python", "numpy", "torch", "cuda"


def random_state() -> dict[str, Tensor]:
    """The states of the generators of Python, numpy and torch, by name, as tensors.

    CuPy's generators cannot be read: `reseed_cupy` puts them into a state that is the same with and without an
    interruption.
    """
    version, words, gauss = random.getstate()
    _, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    states = {
        PYTHON: torch.tensor([float("nan") if gauss is None else gauss, version, *words], dtype=torch.float64),
        NUMPY: torch.tensor([place, has_gauss, cached, *keys], dtype=torch.float64),
        TORCH: torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        for number, state in enumerate(torch.cuda.get_rng_state_all()):
            states[f"{CUDA}.{number}"] = state
    return states


def restore_random_state(states: Mapping[str, Tensor]) -> None:
    """Set the named generators to what `random_state` returned; the others do not change."""
    for name, state in states.items():
        if name == PYTHON:
            gauss, version, *words = state.tolist()
            random.setstate((int(version), tuple(map(int, words)), None if gauss != gauss else gauss))
        elif name == NUMPY:
            place, has_gauss, cached = state[:3].tolist()
            keys = state[3:].numpy().astype(np.uint32)
            np.random.set_state(("MT19937", keys, int(place), int(has_gauss), cached))
        elif name == TORCH:
            torch.set_rng_state(state)
        else:
            number = int(name.partition(".")[2])
            if torch.cuda.is_available() and number < torch.cuda.device_count():
                torch.cuda.set_rng_state(state, number)


def drawn_from(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Iterable[str]:
    """The names of the generators whose state has changed."""
    # Bitwise, as a missing number in Python's state is NaN, which equals nothing.
    return [
        name
        for name, state in after.items()
        if name not in before or not torch.equal(state.view(torch.uint8), before[name].view(torch.uint8))
    ]


def reseed_rank(rank: int, seed: int, step: int) -> None:
    """Give each process of a training its own dropout from a step on, except the first, whose state is in checkpoints.

    rank (int): The number of this process.
    """
    if rank:
        torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0]))


def reseed_cupy(ops_xp: object, seed: int, step: int) -> None:
    """Seed CuPy's generator from the number of a step, if CuPy computes.

    ops_xp (module): The array module of thinc's current ops.
    """
    if ops_xp is not np:
        ops_xp.random.seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))  # type: ignore[attr-defined]
