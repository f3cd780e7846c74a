"""Tells which running trials of a database still have a process that works on them.

A trial is a record of Optuna; here it holds one training. Optuna's own heartbeat belongs to `Study.optimize` and does
not look at processes: even on the same machine, a trial whose process has died would block its training until the grace
period is over.
"""

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

# Attributes of a trial in the database.
TOKEN, HOST, PROCESS, ALIVE = "token", "host", "process", "alive"
# Seconds between signs of life of a running trial, and seconds without one after which it counts as dead.
HEARTBEAT, GRACE = 20.0, 120.0
PROC = Path("/proc")
# The tokens of the trials that run in this process.
_running: set[str] = set()


def new_owner() -> dict[str, Any]:
    """Attributes by which other processes recognize that a trial belongs to this one.

    The trial counts as running here until `release`.
    """
    token = uuid.uuid4().hex
    _running.add(token)
    return {TOKEN: token, HOST: _host(), PROCESS: _process(os.getpid()), ALIVE: time.time()}


def release(token: str) -> None:
    """Note that the trial with this token no longer runs in this process."""
    _running.discard(token)


@contextlib.contextmanager
def signs_of_life(trial: optuna.Trial) -> Iterator[None]:
    """Write the time into a trial every `HEARTBEAT` seconds for as long as the block runs."""
    done = threading.Event()

    def write() -> None:
        while not done.wait(HEARTBEAT):
            # The database may be unreachable for a while.
            with contextlib.suppress(Exception):
                trial.set_user_attr(ALIVE, time.time())

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def is_dead(trial: FrozenTrial) -> bool:
    """Whether no process works on a running trial any more.

    On this machine the process is looked up; on another one a trial is dead after `GRACE` seconds without a sign of
    life.
    """
    attrs = trial.user_attrs
    if attrs.get(HOST) == _host() and PROCESS in attrs and PROC.is_dir():
        if attrs[PROCESS] == _process(os.getpid()):
            return attrs.get(TOKEN) not in _running
        return _process(int(str(attrs[PROCESS]).partition(":")[0])) != attrs[PROCESS]
    started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    return time.time() - attrs.get(ALIVE, started) > GRACE


def _host() -> str:
    """This machine. Containers that do not see each other's processes count as different machines."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _process(number: int) -> str:
    """A process's number and, where the system says, its start time, since numbers are reused."""
    try:
        fields = (PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return f"{number}:gone"
    # A zombie only waits for its parent to collect it.
    return f"{number}:gone" if fields[0] == "Z" else f"{number}:{fields[19]}"
