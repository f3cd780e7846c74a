"""Processes that run cases.

If a case hangs or kills its process, only that case counts as broken: the next one gets a new process.
"""

import multiprocessing
import os
import random
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from .part import Check, Part
from .results import Failure

# The number of lines of a traceback that are kept: the first ones, as the message is recorded separately.
TRACE_LINES = 24
# The maximum number of characters in a message.
MESSAGE_LENGTH = 2000
# Seconds after the time limit at which a process that has not stopped is killed.
GRACE = 10.0
# Seconds for the preparation of a part in a process, in addition to the limit of its first case.
PREPARATION = 300.0


class TooLong(Exception):
    """A case exceeded its time limit."""


def generator(seed: int, part: str, number: int) -> random.Random:
    """The random generator of a case: the same whenever and wherever it is run."""
    return random.Random(f"{seed}-{part}-{number}")


def run_case(check: Check, part: str, number: int, seed: int, limit: float) -> tuple[float, Failure | None]:
    """Run one case in this process.

    limit (float): The time limit in seconds; 0 for none.
    RETURNS (tuple): The seconds it took, and what broke.
    """

    def too_long(*_: Any) -> None:
        raise TooLong(f"more than {limit:g} seconds")

    before = signal.signal(signal.SIGALRM, too_long)
    begun = time.monotonic()
    failure = None
    try:
        signal.setitimer(signal.ITIMER_REAL, limit)
        check(number, generator(seed, part, number))
    except Exception as error:
        failure = _failure_of(error, part, number, begun)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return time.monotonic() - begun, failure


def _failure_of(error: Exception, part: str, number: int, begun: float) -> Failure:
    lines = "".join(traceback.format_exception(error)).splitlines()
    message = f"{type(error).__name__}: {error}"[:MESSAGE_LENGTH]
    return Failure(part, number, message, lines[:TRACE_LINES], round(time.monotonic() - begun, 2))


def _serve(connection: Connection, parts: dict[str, Part], work: Path, seed: int, limit: float) -> None:
    """Run the cases that the other end of the connection names, until it closes."""
    # A process group of its own, so that processes that a case has left running are killed with it.
    os.setsid()
    opened: ExitStack | None = None
    name, check = "", None
    try:
        with suppress(EOFError):
            while True:
                part, number = connection.recv()
                if part != name or check is None:
                    if opened is not None:
                        opened.close()
                    opened, name, check = ExitStack(), part, None
                    folder = work / f"{part}-{os.getpid()}"
                    folder.mkdir(parents=True, exist_ok=True)
                    begun = time.monotonic()
                    try:
                        check = opened.enter_context(parts[part].open(folder))
                    except Exception as error:
                        connection.send((time.monotonic() - begun, _failure_of(error, part, number, begun)))
                        continue
                connection.send(run_case(check, part, number, seed, limit))
    finally:
        if opened is not None:
            opened.close()


class _Worker:
    """One process, and the case it is running."""

    def __init__(self, parts: dict[str, Part], work: Path, seed: int, limit: float) -> None:
        # Not forked from this process: a fork has none of its threads, and would hang on locks that they hold. The fork
        # server has no threads, and has already imported what takes long.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, *sorted({part.open.__module__ for part in parts.values()})])
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, parts, work, seed, limit))
        self.process.start()
        other.close()
        self.limit, self.part, self.at = limit, "", (-1, -1)
        self.since = self.until = 0.0

    def begin(self, part: str, place: int, number: int) -> None:
        self.at, self.since = (place, number), time.monotonic()
        self.until = self.since + self.limit + GRACE + (PREPARATION if part != self.part else 0)
        self.part = part
        self.connection.send((part, number))

    def end(self) -> tuple[float, Failure | None]:
        """The result of the case.

        RAISES (EOFError): The process has died.
        """
        return self.connection.recv()

    def kill(self) -> int | None:
        """Kill the process and everything that it has started.

        RETURNS (int | None): Its exit status.
        """
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode

    def stop(self) -> None:
        """Let the process clean up and end."""
        self.connection.close()
        self.process.join(GRACE)
        if self.process.is_alive():
            self.kill()


def run_all(
    parts: dict[str, Part], todo: Sequence[tuple[str, int, int]], work: Path, *, seed: int, jobs: int, limit: float
) -> Iterator[tuple[str, int, float, Failure | None]]:
    """Run cases in processes of their own.

    parts (dict): The parts by name.
    todo (Sequence): Part, place and number of each case; those of a part are consecutive.
    work (Path): A folder for the files of the parts.
    limit (float): The time limit per case in seconds.
    YIELDS (tuple): Part, place, seconds, and what broke, in the order in which cases end.
    """
    waiting = iter(todo)
    idle: list[_Worker] = []
    busy: list[_Worker] = []
    try:
        more = True
        while more or busy:
            while more and len(busy) < jobs:
                case = next(waiting, None)
                if case is None:
                    more = False
                    break
                part, place, number = case
                worker = idle.pop() if idle else _Worker(parts, work, seed, limit)
                busy.append(worker)
                worker.begin(part, place, number)
            if not busy:
                break
            # Without connections it would wait for the whole time.
            wait([worker.connection for worker in busy], timeout=1.0)
            for worker in list(busy):
                part, (place, number) = worker.part, worker.at
                late = time.monotonic() > worker.until
                if not worker.connection.poll() and not late:
                    continue
                busy.remove(worker)
                seconds = time.monotonic() - worker.since
                try:
                    if late and not worker.connection.poll():
                        raise TooLong(f"more than {limit:g} seconds, and it did not heed it")
                    seconds, failure = worker.end()
                    idle.append(worker)
                except (EOFError, ConnectionError, TooLong) as error:
                    status = worker.kill()
                    message = str(error) if isinstance(error, TooLong) else f"the process ended with status {status}"
                    failure = Failure(part, number, message, [], round(seconds, 2))
                yield part, place, seconds, failure
    except BaseException:
        for worker in [*busy, *idle]:
            worker.kill()
        raise
    for worker in idle:
        worker.stop()
