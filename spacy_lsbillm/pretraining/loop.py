"""The training loop: optimizer steps with a learning-rate schedule, and checkpoints in between."""

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
# Blocks of held-out text that are scored at each checkpoint.
HELD_OUT_BLOCKS = 256
HELD_OUT_BATCH = 16


class Schedule(Protocol):
    """The settings of the steps of a run, as in `TrainingSettings`."""

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
    """The learning rate of a step: linear warm-up, then half a cosine (Loshchilov and Hutter, 2017).

    The cosine ends at `final_rate` times the highest rate.
    """
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    done = min(1.0, max(0, step - settings.warmup_steps) / max(1, steps - settings.warmup_steps))
    low = settings.final_rate
    return settings.learn_rate * warm * (low + (1 - low) * (1 + math.cos(math.pi * done)) / 2)


def adamw(parameters: Sequence[nn.Parameter], settings: Schedule) -> torch.optim.AdamW:
    """Create the optimizer. Vectors, such as the weights of norms, do not decay."""
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
    tokens_per_step: int,
    batch: Callable[[int], Tensor],
    loss_of: Callable[[Tensor, int], Tensor],
    held_out: Callable[[], float],
    save: Callable[[], None],
) -> None:
    """Train from the step that `progress` has reached to the last one.

    model (Module): The model; those of its parameters are trained that the optimizer has.
    batch (Callable): Returns the blocks of a step.
    loss_of (Callable): (blocks, seed) -> the mean loss in nats.
    held_out (Callable): Returns the mean loss on held-out text.
    save (Callable): Writes a checkpoint; called when `progress` is up to date.
    RAISES (SettingError): The loss is not finite any more.
    """
    begun, since = time.monotonic() - progress.seconds, []
    model.train()
    with tqdm(
        total=steps * tokens_per_step, initial=progress.step * tokens_per_step, unit=" tok", unit_scale=True
    ) as bar:
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
            bar.update(tokens_per_step)
            progress.step = step + 1
            if progress.step % settings.checkpoint_every == 0 or progress.step == steps:
                mean = torch.stack(since).mean().item()
                since.clear()
                held = held_out()
                if not math.isfinite(mean + held):
                    raise SettingError(
                        f"the loss is {mean} in training and {held} on held-out text after {progress.step} steps. The "
                        f"last checkpoint is complete; start a new run with a learn_rate below {settings.learn_rate}."
                    )
                progress.seconds = time.monotonic() - begun
                progress.curve.append([progress.step, progress.step * tokens_per_step, mean, held, progress.seconds])
                bar.set_postfix(loss=f"{mean:.3f}", held_out=f"{held:.3f}")
                save()


def held_out_nats(loss_of: Callable[[Tensor, int], Tensor], array: TokenArray, limit: int | None = None) -> float:
    """Mean loss on the first blocks of held-out text, at most `limit` of them.

    Which tokens are hidden depends only on the number of the forward pass, so that figures can be compared between
    runs with different batches.
    """
    numbers = np.arange(min(limit or array.n_blocks, array.n_blocks))
    with torch.inference_mode():
        parts = array.blocks(numbers).split(HELD_OUT_BATCH)
        return sum(loss_of(part, i).item() * len(part) for i, part in enumerate(parts)) / len(numbers)
