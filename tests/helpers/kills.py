"""Runs that are killed, in processes forked from the tests, because starting Python takes ten seconds."""

import os
import signal
from collections.abc import Callable


def killed(work: Callable[[], object]) -> None:
    """Do work in a process that must kill itself before the work is done."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def dying_after(function: Callable, calls: int = 1) -> Callable:
    """The function, which kills its process after the given number of calls."""
    left = calls

    def call_and_die(*arguments, **more):
        nonlocal left
        result = function(*arguments, **more)
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call_and_die
