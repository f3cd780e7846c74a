"""How a command ends whose training was stopped from outside."""

from collections.abc import Iterator
from contextlib import contextmanager

from typer import Exit
from wasabi import msg

from ..training import PREEMPTED, Preempted, RankLost


@contextmanager
def exit_if_stopped(go_on: str) -> Iterator[None]:
    """Within it a training that is stopped from outside ends the command, with what to do next.

    go_on (str): How it goes on.
    """
    try:
        yield
    except Preempted as stopped:
        again = "Nothing was kept." if stopped.step is None else f"The checkpoint is of step {stopped.step}: {go_on}"
        if stopped.first:
            msg.warn(f"Asked to stop. {again}")
        raise Exit(PREEMPTED) from None
    except RankLost:
        # Whichever process has failed says so itself.
        raise Exit(1) from None
