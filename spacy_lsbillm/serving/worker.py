"""The thread that annotates. Requests accepted while it computes wait, and are then annotated together.

It is a single thread, as a pipeline can annotate only one batch at a time and torch itself uses several cores.
Pipelines take turns: requests to others wait for one batch, however many texts are waiting for the first.
"""

import threading
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any

from ..annotation.piping import DeviceLost
from .metrics import Metrics
from .refusal import TOO_MANY, UNAVAILABLE, Refused
from .served import Served

# The maximum number of texts per batch; further ones wait for the next.
BATCH_DOCUMENTS, BATCH_CHARACTERS = 128, 65_536
# The maximum seconds that a refused client is asked to wait.
LONGEST_RETRY = 60
Records = list[dict[str, Any]]


@dataclass(eq=False)
class Job:
    """The texts of a request.

    served (Served), mask (str | None): The pipeline and the mask to annotate with.
    texts (list[str]): The texts. Their positions are their ids.
    """

    served: Served
    mask: str | None
    texts: list[str]
    since: float = field(default_factory=time.monotonic)
    future: "Future[Records]" = field(default_factory=Future)
    begun: int = 0
    records: Records = field(default_factory=list)

    @property
    def left(self) -> int:
        """Number of texts whose annotation has not started."""
        return len(self.texts) - self.begun


class Worker:
    """The thread that annotates, and its queue.

    gather_seconds (float): Seconds that the first text of a batch may wait for others.
    max_queue (int): Maximum number of waiting texts.
    metrics (Metrics): Where batches are counted.
    computing (bool): Whether a batch is being annotated.
    lost (str | None): Why nothing can be annotated any more: the GPU is lost.
    when_lost (Callable[[], None]): Called when the GPU is lost.
    """

    def __init__(self, gather_seconds: float, max_queue: int, metrics: Metrics) -> None:
        self._gather, self._max_queue, self._metrics = gather_seconds, max_queue, metrics
        self._changed = threading.Condition()
        self._queues: OrderedDict[tuple[str, str | None], deque[Job]] = OrderedDict()
        self._waiting = 0
        self._stopping = False
        # Texts per second, for the time that a refused client is asked to wait.
        self._speed = 0.0
        self.computing = False
        self.lost: str | None = None
        self.when_lost: Callable[[], None] = lambda: None
        # thinc stores in it whether it computes on a GPU.
        context = copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="annotate", daemon=True)

    def start(self) -> None:
        """Start the thread, which waits for requests."""
        self._thread.start()

    def stop(self) -> None:
        """Annotate the accepted texts, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    @property
    def waiting(self) -> int:
        """Number of accepted texts whose annotation has not started."""
        return self._waiting

    def submit(self, served: Served, mask: str | None, texts: list[str]) -> Job:
        """Queue texts for annotation.

        RETURNS (Job): Its `future` receives the records, in the order of the texts.
        RAISES (Refused): The queue is full, or the worker has ended.
        """
        job = Job(served, mask, texts)
        if not texts:
            job.future.set_result([])
            return job
        with self._changed:
            if self._stopping or self.lost is not None:
                raise Refused(UNAVAILABLE, f"the service is ending{f': {self.lost}' if self.lost else ''}")
            if self._waiting + len(texts) > self._max_queue:
                raise Refused(
                    TOO_MANY,
                    f"{self._waiting:,} texts are waiting, and {len(texts):,} more do not fit a queue of "
                    f"{self._max_queue:,}: try again later",
                    {"Retry-After": str(self._retry_after())},
                )
            self._waiting += len(texts)
            self._queues.setdefault((served.name, mask), deque()).append(job)
            self._changed.notify()
        return job

    def drop(self, job: Job) -> None:
        """Drop those texts of a job whose annotation has not started, as its client no longer waits."""
        with self._changed:
            job.future.cancel()
            self._forget(job)

    def _forget(self, job: Job) -> None:
        key = job.served.name, job.mask
        queue = self._queues.get(key, deque())
        if job in queue:
            queue.remove(job)
            self._waiting -= job.left
            if not queue:
                del self._queues[key]

    def _retry_after(self) -> int:
        return min(LONGEST_RETRY, max(1, round(self._waiting / self._speed))) if self._speed else 1

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            begun = time.monotonic()
            served, mask = batch[0][0].served, batch[0][0].mask
            try:
                records = served.annotate([(job.texts[place], place) for job, place in batch], mask)
            except Exception as error:
                if isinstance(error, DeviceLost):
                    self._lose(str(error))
                traceback.print_exc()
                for job in {job for job, _ in batch}:
                    self._fail(job, error)
                continue
            seconds = time.monotonic() - begun
            self._speed = len(batch) / max(seconds, 1e-6)
            self._metrics.batch(served.name, seconds, len(batch), sum("error" in record for record in records))
            for (job, _), record in zip(batch, records, strict=True):
                job.records.append(record)
                if len(job.records) == len(job.texts) and job.future.set_running_or_notify_cancel():
                    job.future.set_result(job.records)

    def _next(self) -> list[tuple[Job, int]] | None:
        """The next texts to annotate, as pairs of a job and a position; None: there will be no more."""
        with self._changed:
            self.computing = False
            while not (self._queues and self._gathered() <= 0):
                if self._stopping and not self._queues:
                    return None
                self._changed.wait(self._gathered() if self._queues else None)
            self.computing = True
            return self._taken()

    def _gathered(self) -> float:
        """Seconds until the waiting texts are to be annotated.

        Those that arrived while another batch was computed have waited already.
        """
        if self._stopping or self._waiting >= BATCH_DOCUMENTS:
            return 0
        return min(queue[0].since for queue in self._queues.values()) + self._gather - time.monotonic()

    def _taken(self) -> list[tuple[Job, int]]:
        key, queue = next(iter(self._queues.items()))
        taken: list[tuple[Job, int]] = []
        characters = 0
        while queue and len(taken) < BATCH_DOCUMENTS:
            job = queue[0]
            characters += len(job.texts[job.begun])
            if taken and characters > BATCH_CHARACTERS:
                break
            taken.append((job, job.begun))
            job.begun += 1
            if not job.left:
                queue.popleft()
        self._waiting -= len(taken)
        self._queues.move_to_end(key)
        if not queue:
            del self._queues[key]
        return taken

    def _fail(self, job: Job, error: Exception) -> None:
        with self._changed:
            self._forget(job)
        if not job.future.done() and job.future.set_running_or_notify_cancel():
            job.future.set_exception(error)

    def _lose(self, why: str) -> None:
        with self._changed:
            self.lost = why
            jobs = [job for queue in self._queues.values() for job in queue]
        for job in jobs:
            self._fail(job, DeviceLost(why))
        self.when_lost()
