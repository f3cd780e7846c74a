"""Annotating processes on this machine."""

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext

from ..errors import SettingError
from .annotator import Annotator, AnnotatorSettings, Result
from .batches import Batch
from .pool import Outcome, Pool, overdue, overdue_message

# Maximum number of consecutive processes that may die while they load the pipeline.
MOST_STILLBORN = 3
# Seconds for a process to end by itself.
GRACE = 2.0
THREADS = "OMP_NUM_THREADS"
# What a pipeline imports when it is created, which takes seconds.
PRELOADED = (
    "spacy_lsbillm.architectures",
    "spacy_lsbillm.pipeline.billm_transformer",
    "spacy_lsbillm.pipeline.sequence_labeler",
    "spacy_lsbillm.pipeline.span_labeler",
)
READY = "ready"


def _serve(connection: Connection, settings: AnnotatorSettings, gpu: int | None) -> None:
    """Load the pipeline and annotate incoming batches until the other end closes the connection or dies."""
    # An interrupt at the terminal reaches all processes; the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        try:
            annotator = Annotator(settings, gpu)
        except Exception as error:
            connection.send(f"{type(error).__name__}: {error}")
            return
        connection.send(READY)
        while True:
            connection.send(annotator.annotate(connection.recv()))


class _Worker:
    """One process and its current work."""

    def __init__(self, context: BaseContext, settings: AnnotatorSettings, gpu: int | None) -> None:
        self.gpu = gpu
        self.ready = False
        self.batch: Batch | None = None
        # When it received its batch.
        self.since = 0.0
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, settings, gpu), daemon=True)  # type: ignore[attr-defined]
        self.process.start()
        other.close()

    @property
    def idle(self) -> bool:
        return self.ready and self.batch is None

    def end(self) -> str:
        """End the process. RETURNS (str): How it ended, in words."""
        self.connection.close()
        self.process.join(GRACE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        status = self.process.exitcode or 0
        return f"with status {status}" if status >= 0 else f"by signal {-status} ({signal.Signals(-status).name})"


class LocalPool(Pool):
    """Processes on this machine, each with its own pipeline.

    settings (AnnotatorSettings): The settings of each process.
    gpus (Sequence[int | None]): One entry per process: the number of its GPU, or None for the CPU.
    timeout (float | None): Maximum seconds per batch; None: no limit.
    """

    def __init__(self, settings: AnnotatorSettings, gpus: Sequence[int | None], timeout: float | None = None) -> None:
        self._settings, self._timeout = settings, timeout
        # A forked process has only one thread of torch, see `backbone.weights`, and cannot use a GPU if CUDA was
        # queried before the fork. Where neither matters, processes are forked from a server that has imported
        # everything and has no threads.
        forked = settings.threads == 1 and not any(gpu is not None for gpu in gpus)
        forked = forked and "forkserver" in multiprocessing.get_all_start_methods()
        self._context: BaseContext = multiprocessing.get_context("forkserver" if forked else "spawn")
        if forked:
            self._context.set_forkserver_preload([__name__, *PRELOADED])
        self._stillborn = 0
        self._workers: list[_Worker] = []
        try:
            for gpu in gpus:
                self._start(gpu)
        except BaseException:
            self.close()
            raise

    def _start(self, gpu: int | None) -> None:
        # Libraries read it when they are imported.
        before = os.environ.get(THREADS)
        if self._settings.threads is not None:
            os.environ[THREADS] = str(self._settings.threads)
        try:
            self._workers.append(_Worker(self._context, self._settings, gpu))
        finally:
            if before is None:
                os.environ.pop(THREADS, None)
            else:
                os.environ[THREADS] = before

    @property
    def processes(self) -> int:
        return len(self._workers)

    def idle(self) -> int:
        return sum(worker.idle for worker in self._workers)

    def submit(self, batch: Batch) -> None:
        worker = next(worker for worker in self._workers if worker.idle)
        worker.batch, worker.since = batch, time.monotonic()
        # If it has died, `wait` will notice.
        with suppress(OSError):
            worker.connection.send(batch.items)

    def wait(self, seconds: float) -> list[Outcome]:
        outcomes = []
        waiting: list[Connection] = [worker.connection for worker in self._workers]
        heard = wait(waiting, timeout=seconds)
        for worker in [worker for worker in self._workers if worker.connection in heard]:
            try:
                said = worker.connection.recv()
            except (EOFError, OSError):
                outcomes += self._replace(worker)
                continue
            if isinstance(said, Result):
                assert worker.batch is not None
                outcomes.append(Outcome(worker.batch, said))
                worker.batch = None
            elif said == READY:
                worker.ready, self._stillborn = True, 0
            else:
                raise SettingError(f"the pipeline {self._settings.pipeline!r} cannot be loaded: {said}")
        for worker in [one for one in self._workers if one.batch is not None and overdue(one.since, self._timeout)]:
            worker.process.kill()
            outcomes += self._replace(worker, overdue_message(self._timeout))
        return outcomes

    def _replace(self, worker: _Worker, why: str = "") -> list[Outcome]:
        """Replace a process that has died or that was ended."""
        self._workers.remove(worker)
        ended = worker.end()
        death = why or f"the process ended {ended}"
        self._stillborn += not worker.ready
        if self._stillborn >= MOST_STILLBORN:
            raise SettingError(
                f"the pipeline {self._settings.pipeline!r} cannot be loaded: {death}, the third in a row. If memory "
                f"is short, use fewer --processes."
            )
        self._start(worker.gpu)
        return [] if worker.batch is None else [Outcome(worker.batch, None, death)]

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.end()
        self._workers.clear()
