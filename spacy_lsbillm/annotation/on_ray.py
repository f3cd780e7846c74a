"""Annotating processes on a Ray cluster: actors, which Ray places where there is room."""

import os
import time
from dataclasses import dataclass
from typing import Any

from ..cluster import connected, last_line, room_of
from ..errors import SettingError
from .annotator import Annotator, AnnotatorSettings, Result
from .batches import Batch
from .pool import Outcome, Pool, overdue, overdue_message

# Seconds between two checks of the cluster's size.
RESIZE_SECONDS = 10.0
# Maximum number of consecutive actors that may die while they load the pipeline. A lost node takes several with it.
MOST_STILLBORN = 20


class _Actor:
    """The actor that runs on a node.

    folder (str): The folder in which the run was started, to resolve relative names, if the node has it.
    """

    def __init__(self, settings: AnnotatorSettings, gpu: bool, folder: str) -> None:
        if os.path.isdir(folder):
            os.chdir(folder)
        # Ray shows an actor only its own GPU.
        self._annotator = Annotator(settings, 0 if gpu else None)

    def ready(self) -> None:
        """Return once the pipeline is loaded."""

    def annotate(self, batch: Batch) -> Result:
        return self._annotator.annotate(batch.items)


@dataclass
class _Worker:
    """An actor and its current work.

    handle (Any): The actor.
    call (Any): The pending call; None: it is idle.
    batch (Batch | None): None while it loads the pipeline or is idle.
    since (float): When the call was made.
    """

    handle: Any
    call: Any
    batch: Batch | None = None
    since: float = 0.0


class RayPool(Pool):
    """Actors on a Ray cluster, each with its own pipeline and one core, or one GPU and one core.

    address (str): HOST:PORT, ray://HOST:PORT, or "auto" for the cluster that this machine is part of.
    processes (int | None): Number of actors. Those without room wait for it, which makes an autoscaling cluster grow.
        None: as many as the cluster has room for, also when it grows.
    gpu (bool): Whether they compute on GPUs.
    timeout (float | None): Maximum seconds per batch; None: no limit.
    RAISES (SettingError): Ray is not installed, does not run there, or has no room.
    """

    def __init__(
        self,
        settings: AnnotatorSettings,
        address: str,
        processes: int | None,
        gpu: bool,
        timeout: float | None = None,
    ) -> None:
        self._ray = connected(address)
        self._settings, self._address, self._gpu = settings, address, gpu
        self._wanted, self._timeout = processes, timeout
        self._workers: list[_Worker] = []
        self._stillborn = 0
        self._resized = 0.0
        options: dict[str, Any] = {"num_cpus": 1, "max_restarts": 0, "max_concurrency": 1}
        self._remote = self._ray.remote(**options, **({"num_gpus": 1} if gpu else {}))(_Actor)
        try:
            self._resize()
        except BaseException:
            self.close()
            raise

    @property
    def processes(self) -> int:
        return len(self._workers)

    def idle(self) -> int:
        return sum(worker.call is None for worker in self._workers)

    def submit(self, batch: Batch) -> None:
        worker = next(worker for worker in self._workers if worker.call is None)
        worker.batch, worker.since = batch, time.monotonic()
        worker.call = worker.handle.annotate.remote(batch)

    def wait(self, seconds: float) -> list[Outcome]:
        self._resize()
        calls = [worker.call for worker in self._workers if worker.call is not None]
        done, _ = self._ray.wait(calls, num_returns=1, timeout=seconds) if calls else ([], [])
        # Others that have finished by now.
        done = self._ray.wait(calls, num_returns=len(calls), timeout=0)[0] if done else []
        outcomes = []
        for worker in [worker for worker in self._workers if worker.call in done]:
            call, batch = worker.call, worker.batch
            worker.call = worker.batch = None
            try:
                result = self._ray.get(call)
            except self._ray.exceptions.RayTaskError as error:
                # Documents that fail do not raise errors in an actor.
                raise SettingError(
                    f"the pipeline {self._settings.pipeline!r} cannot be used on a node of the cluster. The node must "
                    f"find it under the same name, and also its base: {last_line(error)}"
                ) from error
            except self._ray.exceptions.RayError as error:
                self._bury(worker, batch, error)
                if batch is not None:
                    outcomes.append(Outcome(batch, None, f"the actor died ({type(error).__name__})"))
                continue
            if batch is None:
                self._stillborn = 0
            else:
                outcomes.append(Outcome(batch, result))
        for worker in list(self._workers):
            if worker.batch is not None and overdue(worker.since, self._timeout):
                self._workers.remove(worker)
                self._ray.kill(worker.handle)
                self._resized = 0.0
                outcomes.append(Outcome(worker.batch, None, overdue_message(self._timeout)))
        return outcomes

    def _bury(self, worker: _Worker, batch: Batch | None, error: Exception) -> None:
        self._workers.remove(worker)
        # It may be alive, with only its answer lost.
        self._ray.kill(worker.handle)
        cause = getattr(error, "cause", None) or error.__cause__
        if isinstance(cause, self._ray.exceptions.RayTaskError):
            raise SettingError(
                f"the pipeline {self._settings.pipeline!r} cannot be loaded on a node of the cluster. The node must "
                f"find it under the same name, and also its base: {last_line(cause)}"
            ) from error
        self._stillborn += batch is None
        if self._stillborn >= MOST_STILLBORN:
            raise SettingError(
                f"the pipeline {self._settings.pipeline!r} cannot be loaded on the cluster: {self._stillborn} actors "
                f"in a row died while loading it. The last: {last_line(error)}"
            ) from error
        self._resized = 0.0

    def _resize(self) -> None:
        """Start the requested number of actors, or as many as there is room for."""
        if time.monotonic() - self._resized < RESIZE_SECONDS:
            return
        self._resized = time.monotonic()
        room = self._wanted
        if room is None:
            room = room_of(self._ray, self._gpu)
            if not room and not self._workers:
                raise SettingError(
                    f"the Ray cluster at {self._address} has no {'GPU' if self._gpu else 'core'} to annotate on: start "
                    f"a node, or say with --processes how many to wait for."
                )
        while len(self._workers) < room:
            handle = self._remote.remote(self._settings, self._gpu, os.getcwd())
            self._workers.append(_Worker(handle, handle.ready.remote()))

    def close(self) -> None:
        for worker in self._workers:
            self._ray.kill(worker.handle)
        self._workers.clear()
        self._ray.shutdown()
