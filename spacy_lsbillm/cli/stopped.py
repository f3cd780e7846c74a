"""Ending a command whose training was stopped from outside."""

from collections.abc import Iterator
from contextlib import contextmanager

from typer import Exit
from wasabi import msg

from ..training import PREEMPTED, Preempted, RankLost


@contextmanager
def exit_if_stopped(go_on: str) -> Iterator[None]:
    """End the command with its exit status if a training inside the context is stopped from outside.

    go_on (str): What the message says on how to continue.
    """
    try:
        yield
    except Preempted as stopped:
        again = "Nothing was kept." if stopped.step is None else f"The checkpoint is of step {stopped.step}: {go_on}"
        if stopped.first:
            msg.warn(f"Asked to stop. {again}")
        raise Exit(PREEMPTED) from None
    except RankLost:
        # The process that has failed prints the error itself.
        raise Exit(1) from None
