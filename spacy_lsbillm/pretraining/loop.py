"""The steps of a run: batches, gradients, the rate of each step, and a checkpoint every so often."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from ..errors import SettingError
from .checkpoint import Progress
from .tokens import TokenArray

COLUMNS = ("step", "tokens", "loss", "held_out_nats", "seconds")
# Blocks that are scored at each checkpoint.
HELD_OUT_BLOCKS = 256
HELD_OUT_BATCH = 16


class Schedule(Protocol):
    """What the settings of a run say of its steps; see `TrainingSettings`."""

    @property
    def micro_batch(self) -> int: ...
    @property
    def learn_rate(self) -> float: ...
    @property
    def final_rate(self) -> float: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def beta2(self) -> float: ...
    @property
    def grad_clip(self) -> float: ...
    @property
    def checkpoint_every(self) -> int: ...
    @property
    def seed(self) -> int: ...


def learn_rate(settings: Schedule, step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to `final_rate` of the highest (Loshchilov and Hutter, 2017)."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    done = min(1.0, max(0, step - settings.warmup_steps) / max(1, steps - settings.warmup_steps))
    low = settings.final_rate
    return settings.learn_rate * warm * (low + (1 - low) * (1 + math.cos(math.pi * done)) / 2)


def adamw(parameters: Sequence[nn.Parameter], settings: Schedule) -> torch.optim.AdamW:
    """The optimizer; vectors, as those of norms, do not decay."""
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=settings.learn_rate,
        betas=(0.9, settings.beta2),
        fused=True,
    )


def run_steps(
    settings: Schedule,
    steps: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    *,
    tokens_a_step: int,
    batch: Callable[[int], Tensor],
    loss_of: Callable[[Tensor, int], Tensor],
    held_out: Callable[[], float],
    save: Callable[[], None],
) -> None:
    """Train from the step that `progress` says to the last one.

    model (Module): Of which those parameters are trained that the optimizer has.
    batch (Callable): Gives the blocks of a step.
    loss_of (Callable): (blocks, seed) -> the mean loss in nats.
    held_out (Callable): Gives that of held-out text.
    save (Callable): Writes a checkpoint, which is called when `progress` is up to date.
    RAISES (SettingError): The loss is no number any more.
    """
    begun, since = time.monotonic() - progress.seconds, []
    model.train()
    with tqdm(total=steps * tokens_a_step, initial=progress.step * tokens_a_step, unit=" tok", unit_scale=True) as bar:
        for step in range(progress.step, steps):
            for group in optimizer.param_groups:
                group["lr"] = learn_rate(settings, step, steps)
            parts = batch(step).split(settings.micro_batch)
            losses = []
            for i, part in enumerate(parts):
                loss = loss_of(part, (settings.seed * 2**40 + step * len(parts) + i) % 2**63) / len(parts)
                loss.backward()
                losses.append(loss.detach())
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
            optimizer.step()
            optimizer.zero_grad()
            since.append(torch.stack(losses).sum())
            bar.update(tokens_a_step)
            progress.step = step + 1
            if progress.step % settings.checkpoint_every == 0 or progress.step == steps:
                mean = torch.stack(since).mean().item()
                since.clear()
                held = held_out()
                if not math.isfinite(mean + held):
                    raise SettingError(
                        f"the loss is {mean} in training and {held} on held-out text after {progress.step} steps. The "
                        f"last checkpoint is whole; set learn_rate below {settings.learn_rate} in a run of its own."
                    )
                progress.seconds = time.monotonic() - begun
                progress.curve.append([progress.step, progress.step * tokens_a_step, mean, held, progress.seconds])
                bar.set_postfix(loss=f"{mean:.3f}", held_out=f"{held:.3f}")
                save()


def held_out_nats(loss_of: Callable[[Tensor, int], Tensor], array: TokenArray, limit: int | None = None) -> float:
    """Mean loss on the first blocks of held-out text, at most `limit` of them.

    Tokens are hidden by the number of the pass, so that the figure is the same whatever the batches of the training.
    """
    numbers = np.arange(min(limit or array.n_blocks, array.n_blocks))
    with torch.inference_mode():
        parts = array.blocks(numbers).split(HELD_OUT_BATCH)
        return sum(loss_of(part, i).item() * len(part) for i, part in enumerate(parts)) / len(numbers)
