"""The batch that several processes share, for losses that depend on all of it.

Gradients of the processes are summed. For a component whose gradient is a sum over documents or tokens this is
sufficient; one that divides by their number must use the number in the whole batch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from spacy.training import Example

_whole: ContextVar[Sequence[Example] | None] = ContextVar("whole batch", default=None)


@contextmanager
def share_of(batch: Sequence[Example]) -> Iterator[None]:
    """Context in which components are updated with a share of a batch."""
    token = _whole.set(batch)
    try:
        yield
    finally:
        _whole.reset(token)


def whole_batch() -> Sequence[Example] | None:
    """The batch of which a component gets a share; None: it gets the whole batch."""
    return _whole.get()
