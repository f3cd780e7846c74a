"""A training as `spacy train` makes it, with checkpoints if wanted."""

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
    """What to train, and how it goes on.

    config (Path): A training config.
    output (Path | None): The folder for `model-best`, `model-last` and checkpoints.
    overrides (dict): Values of the config by their place, such as {"training.max_steps": 100}.
    use_gpu (int): The number of the GPU, -1 for the CPU.
    checkpoint_every (Interval | None): None: there are no checkpoints; of a resumed run, as often as before.
    resume (bool): Go on from the last checkpoint in the output.
    force (bool): Go on although something differs.
    """

    config: Path
    output: Path | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    use_gpu: int = -1
    checkpoint_every: Interval | None = None
    resume: bool = False
    force: bool = False


def train(settings: TrainSettings) -> None:
    """Train a config: spaCy's own `train`, and without checkpoints or other processes nothing else.

    Started by torchrun, it is one of several processes, each with a share of every batch.

    RAISES (SettingError, StorageError): The settings do not fit together, or the run cannot go on; before anything is
        loaded.
    RAISES (Preempted): The process got a SIGTERM, and has written a checkpoint.
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
    """RAISES (SettingError, StorageError): The settings do not fit together."""
    if settings.force and not settings.resume:
        raise SettingError("--force goes with --resume: there is nothing else that it could allow.")
    if settings.output is not None and not settings.resume and has_checkpoints(settings.output):
        raise StorageError(
            f"{settings.output / CHECKPOINTS} has checkpoints of a run. Go on with --resume, remove that folder to "
            f"start again, or name another --output."
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
    """In all processes but the first: nothing is printed, logged or saved."""
    config = load_config(settings.config, overrides=settings.overrides, interpolate=False)
    silent = {"@loggers": "spacy.ConsoleLogger.v3", "progress_bar": None, "console_output": False, "output_file": None}
    config["training"]["logger"] = silent
    with TemporaryFolder() as folder, contextlib.redirect_stdout(io.StringIO()):
        config.to_disk(folder / settings.config.name, interpolate=False)
        spacy_train(folder / settings.config.name, None, use_gpu=settings.use_gpu)


def check_alike(identities: Sequence[dict[str, Any]]) -> None:
    """RAISES (SettingError): The processes have other configs, files or versions. All that differ are named."""
    ranks_by_differences: dict[tuple[str, ...], list[int]] = {}
    for rank, identity in enumerate(identities):
        if differing := differences(identities[0], identity):
            ranks_by_differences.setdefault(tuple(differing), []).append(rank)
    if ranks_by_differences:
        told = "".join(
            f"{'process' if len(ranks) == 1 else 'processes'} {', '.join(map(str, ranks))} of this training "
            f"{'differs' if len(ranks) == 1 else 'differ'} from the first one:\n"
            + "".join(f"  {line}\n" for line in differing)
            for differing, ranks in ranks_by_differences.items()
        )
        raise SettingError(f"{told}Give all the same.")


def _resumed(settings: TrainSettings, identity: dict[str, Any], size: int) -> tuple[Checkpoint, Path]:
    """RAISES (StorageError): There is no checkpoint, or it is of another run."""
    assert settings.output is not None
    checkpoint, folder = load_last_checkpoint(settings.output, msg.warn)
    differing = differences(checkpoint.identity, identity)
    if differing and not settings.force:
        raise StorageError(
            f"the checkpoint of step {checkpoint.step} is of another run:\n"
            + "".join(f"  {line}\n" for line in differing)
            + "Set that back, or go on in spite of it with --force; the result is then neither run's."
        )
    if differing:
        msg.warn(f"Going on although this differs: {in_short(differing)}")
    if checkpoint.ranks != size:
        msg.warn(
            f"The run had {checkpoint.ranks} processes and now has {size}: what comes is equal in distribution, not "
            f"number by number."
        )
    most = identity.get("training.max_steps") or 0
    if 0 < most < checkpoint.step:
        raise StorageError(
            f"training.max_steps = {most}, but the last checkpoint is of step {checkpoint.step}: set at least that."
        )
    msg.info(f"Going on after step {checkpoint.step}, from {folder}")
    return checkpoint, folder


@contextlib.contextmanager
def _stopped_by_signal(loop: CheckpointedLoop) -> Iterator[None]:
    """SIGTERM, with which machines are taken away, stops the run after a checkpoint."""
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
