"""Training like `spacy train`, optionally with checkpoints."""

import contextlib
import io
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spacy.cli._util import show_validation_error
from spacy.cli.train import train as spacy_train
from spacy.util import load_config
from wasabi import msg

from ..errors import SettingError, StorageError, in_short
from ..files import TemporaryFolder, sole_writer
from .checkpoint import CHECKPOINTS, Checkpoint, has_checkpoints, load_last_checkpoint
from .identity import differences, identity_of
from .interval import Interval
from .loop import CheckpointedLoop
from .ranks import Ranks, joined, started_by_torchrun

# The exit status of a run that was asked to stop and can be resumed (EX_TEMPFAIL of <sysexits.h>).
PREEMPTED = 75


@dataclass(frozen=True)
class TrainSettings:
    """What to train, and how to continue it.

    config (Path): A training config.
    output (Path | None): The folder for `model-best`, `model-last` and checkpoints.
    overrides (dict): Values of the config by their path, such as {"training.max_steps": 100}.
    use_gpu (int): The number of the GPU, -1 for the CPU.
    checkpoint_every (Interval | None): None: no checkpoints; for a resumed run, as often as before.
    resume (bool): Continue from the last checkpoint in the output.
    force (bool): Continue even if something differs.
    """

    config: Path
    output: Path | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    use_gpu: int = -1
    checkpoint_every: Interval | None = None
    resume: bool = False
    force: bool = False


def train(settings: TrainSettings) -> None:
    """Train a config with spaCy's own `train`, and with checkpoints or several processes if requested.

    If torchrun started this process, it is one of several, each with a share of every batch.

    RAISES (SettingError, StorageError): The settings do not fit together, or the run cannot be continued; raised before
        anything is loaded.
    RAISES (Preempted): The process received SIGTERM, and has written a checkpoint.
    RAISES (RankLost): Another process of the training has ended.
    """
    if settings.use_gpu >= 0 and started_by_torchrun():
        settings = replace(settings, use_gpu=int(os.environ["LOCAL_RANK"]))
    with joined(settings.use_gpu) as ranks:
        ranks.agreed(lambda: _check(settings))
        if ranks.size == 1 and settings.checkpoint_every is None and not settings.resume:
            spacy_train(settings.config, settings.output, use_gpu=settings.use_gpu, overrides=settings.overrides)
            return
        with sole_writer(settings.output) if ranks.first and settings.output else contextlib.nullcontext():
            _train_in_own_loop(settings, ranks)


def _check(settings: TrainSettings) -> None:
    """Check the settings before anything is loaded.

    RAISES (SettingError, StorageError): They do not fit together.
    """
    if settings.force and not settings.resume:
        raise SettingError("--force is only allowed with --resume.")
    if settings.output is not None and not settings.resume and has_checkpoints(settings.output):
        raise StorageError(
            f"{settings.output / CHECKPOINTS} has checkpoints of a run. Continue it with --resume, remove that folder "
            f"to start again, or name another --output."
        )
    if settings.output is None and (settings.resume or settings.checkpoint_every):
        raise SettingError("checkpoints are written to the output folder: name one with --output.")
    if str(settings.config) == "-" and (settings.resume or settings.checkpoint_every or started_by_torchrun()):
        raise SettingError("a config from the standard input can be read only once: write it to a file.")


def _train_in_own_loop(settings: TrainSettings, ranks: Ranks) -> None:
    with show_validation_error(settings.config):
        config = load_config(settings.config, overrides=settings.overrides, interpolate=True)
    identity = identity_of(config, "cpu" if settings.use_gpu < 0 else "gpu")
    identities = ranks.gather(identity)
    ranks.agreed(lambda: check_alike(identities))
    resumed = ranks.agreed(lambda: _resumed(settings, identity, ranks.size)) if settings.resume else None
    interval = settings.checkpoint_every or Interval(**(resumed[0].every if resumed else {}))  # type: ignore[arg-type]
    loop = CheckpointedLoop(settings.output, identity, interval, resumed, ranks)
    with loop.around(), _stopped_by_signal(loop):
        if ranks.first:
            spacy_train(settings.config, settings.output, use_gpu=settings.use_gpu, overrides=settings.overrides)
        else:
            _train_silently(settings)


def _train_silently(settings: TrainSettings) -> None:
    """Train in a process other than the first: nothing is printed, logged or saved."""
    config = load_config(settings.config, overrides=settings.overrides, interpolate=False)
    silent = {"@loggers": "spacy.ConsoleLogger.v3", "progress_bar": None, "console_output": False, "output_file": None}
    config["training"]["logger"] = silent
    with TemporaryFolder() as folder, contextlib.redirect_stdout(io.StringIO()):
        config.to_disk(folder / settings.config.name, interpolate=False)
        spacy_train(folder / settings.config.name, None, use_gpu=settings.use_gpu)


def check_alike(identities: Sequence[dict[str, Any]]) -> None:
    """Check that all processes have the same config, files and versions.

    RAISES (SettingError): Some differ; all of them are named.
    """
    ranks_by_differences: dict[tuple[str, ...], list[int]] = {}
    for rank, identity in enumerate(identities):
        if differing := differences(identities[0], identity):
            ranks_by_differences.setdefault(tuple(differing), []).append(rank)
    if ranks_by_differences:
        report = "".join(
            f"{'process' if len(ranks) == 1 else 'processes'} {', '.join(map(str, ranks))} of this training "
            f"{'differs' if len(ranks) == 1 else 'differ'} from the first one:\n"
            + "".join(f"  {line}\n" for line in differing)
            for differing, ranks in ranks_by_differences.items()
        )
        raise SettingError(f"{report}They must be the same in all processes.")


def _resumed(settings: TrainSettings, identity: dict[str, Any], size: int) -> tuple[Checkpoint, Path]:
    """Find the checkpoint to continue from. RAISES (StorageError): There is none, or it is of another run."""
    assert settings.output is not None
    checkpoint, folder = load_last_checkpoint(settings.output, msg.warn)
    differing = differences(checkpoint.identity, identity)
    if differing and not settings.force:
        raise StorageError(
            f"the checkpoint of step {checkpoint.step} is of another run:\n"
            + "".join(f"  {line}\n" for line in differing)
            + "Set that back, or continue anyway with --force; the result is then that of neither run."
        )
    if differing:
        msg.warn(f"Continuing although this differs: {in_short(differing)}")
    if checkpoint.ranks != size:
        msg.warn(
            f"The run had {checkpoint.ranks} processes and now has {size}: the remaining steps are equal in "
            f"distribution, not number by number."
        )
    most = identity.get("training.max_steps") or 0
    if 0 < most < checkpoint.step:
        raise StorageError(
            f"training.max_steps = {most}, but the last checkpoint is of step {checkpoint.step}: set at least that."
        )
    msg.info(f"Continuing after step {checkpoint.step}, from {folder}")
    return checkpoint, folder


@contextlib.contextmanager
def _stopped_by_signal(loop: CheckpointedLoop) -> Iterator[None]:
    """Let SIGTERM, which schedulers send before they take a machine away, stop the run after a checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        loop.stop_asked = True

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
