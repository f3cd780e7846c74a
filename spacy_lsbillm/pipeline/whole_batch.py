"""The batch that several processes share, for losses that count over all of it.

Gradients of the processes are added up. A component whose gradient is a sum over documents or tokens needs nothing
more; one that divides by a number of them must divide by the whole batch's.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from spacy.training import Example

_whole: ContextVar[Sequence[Example] | None] = ContextVar("whole batch", default=None)


@contextmanager
def share_of(batch: Sequence[Example]) -> Iterator[None]:
    """Within it, what components are updated with is a share of a batch."""
    token = _whole.set(batch)
    try:
        yield
    finally:
        _whole.reset(token)


def whole_batch() -> Sequence[Example] | None:
    """The batch of which a component gets a share; None: what it gets is all."""
    return _whole.get()
