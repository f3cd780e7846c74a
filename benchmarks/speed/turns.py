"""Measuring in turn, so that whatever disturbs the machine for a while disturbs all contestants."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

# On a shared machine processor time is more stable, provided that everything runs in one thread.
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Contestant:
    """A program whose time is measured.

    run (Callable): Takes the result of `prepare`. Only this is timed.
    prepare (Callable): Called before each run.
    """

    run: Callable[[Any], Any]
    prepare: Callable[[], Any] = lambda: None


def by_turns(
    contestants: Mapping[str, Contestant], rounds: int, clock: str, working: dict[str, int] | None = None
) -> dict[str, list[float]]:
    """Run all contestants in each round, after a first round that does not count.

    clock (str): "wall" or "cpu".
    working (dict | None): Filled with the bytes on the GPU that each contestant needs at its peak beyond what is
        already allocated, such as weights; nothing without a GPU.
    RETURNS (dict): The seconds of each contestant, one entry per round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    on_gpu = torch.cuda.is_available() and working is not None
    for number in range(rounds + 1):
        for name, contestant in contestants.items():
            given = contestant.prepare()
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            begun = _now(clock)
            kept = contestant.run(given)
            taken = _now(clock) - begun
            if on_gpu:
                working[name] = max(working.get(name, 0), torch.cuda.max_memory_allocated() - before)
            del kept
            if number:
                seconds[name].append(taken)
    return seconds


def _now(clock: str) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return CLOCKS[clock]()


def ratios(one: list[float], other: list[float]) -> dict[str, float]:
    """How many times as fast `one` is as `other`: the median over rounds, the lowest and the highest."""
    found = [b / a for a, b in zip(one, other, strict=True)]
    return {"median": statistics.median(found), "low": min(found), "high": max(found)}
