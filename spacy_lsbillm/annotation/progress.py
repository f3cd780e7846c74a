"""The progress of an annotation."""

import time
from types import TracebackType

from tqdm import tqdm  # type: ignore[import-untyped]

BAR = "{percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}"


class Progress:
    """A bar over the bytes of the input, with documents, words per second, and the remaining time.

    total (int): Bytes of the input.
    hidden (bool): Show nothing.
    """

    def __init__(self, total: int, hidden: bool = False) -> None:
        self._bar = tqdm(total=total, bar_format=BAR, disable=hidden, mininterval=0.5, dynamic_ncols=True)
        self._begun = time.monotonic()
        self.documents = self.words = self.failures = 0

    def begin(self) -> None:
        """Start the clock. Before that, the pipeline was loading."""
        self._begun = time.monotonic()
        self._bar.unpause()

    def skip(self, share: float) -> None:
        """Count bytes of the input that an earlier run annotated; they do not count for the speed."""
        if not self._bar.disable:
            self._bar.initial += share
            self._bar.update(share)

    def add(self, share: float, documents: int, words: int, failures: int, processes: int) -> None:
        """Count finished work, and show it in the progress bar."""
        self.documents += documents
        self.words += words
        self.failures += failures
        set_aside = f", {self.failures:,} set aside" if self.failures else ""
        speed = f"{self.words / self.seconds:,.0f} words/s"
        self._bar.set_postfix_str(
            f"{self.documents:,} documents, {speed}, processes: {processes}{set_aside}", refresh=False
        )
        self._bar.update(share)

    @property
    def seconds(self) -> float:
        """The duration of this run so far, in seconds; never 0."""
        return max(time.monotonic() - self._begun, 1e-9)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()
