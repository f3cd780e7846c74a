"""The interface of the processes that annotate, on this machine or elsewhere."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType

from .annotator import Result
from .batches import Batch


@dataclass(frozen=True)
class Outcome:
    """The outcome of a batch.

    batch (Batch): The batch.
    result (Result | None): Its result; None: its process died.
    death (str): How the process died, in words.
    """

    batch: Batch
    result: Result | None
    death: str = ""


def overdue(since: float, timeout: float | None) -> bool:
    """Whether a process has exceeded its time and must be ended.

    since (float): When it received its batch, by the monotonic clock.
    timeout (float | None): Maximum seconds; None: no limit.
    """
    return timeout is not None and time.monotonic() - since > timeout


def overdue_message(timeout: float | None) -> str:
    """What an `Outcome` says about a process that exceeded its time."""
    return f"it took longer than the {timeout:g} seconds of --timeout"


class Pool(ABC):
    """Processes that annotate.

    Those that die or exceed their time are replaced. Leaving the pool as a context ends all of them.
    """

    @abstractmethod
    def idle(self) -> int:
        """Number of processes that are ready for a batch."""

    @abstractmethod
    def submit(self, batch: Batch) -> None:
        """Send a batch to an idle process."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Outcome]:
        """Wait until a process becomes idle, but at most `seconds`.

        RETURNS (list[Outcome]): The batches that have ended.
        RAISES (SettingError): The pipeline cannot be loaded.
        """

    @property
    @abstractmethod
    def processes(self) -> int:
        """Number of processes, including those that still load the pipeline."""

    @abstractmethod
    def close(self) -> None:
        """End all processes immediately, without waiting for their batches."""

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
