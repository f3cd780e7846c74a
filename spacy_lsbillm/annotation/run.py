"""An annotation from the input to the shards: reading documents, sending them to processes, writing the results."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import DataError, StorageError, in_short
from ..files import sole_writer
from .annotator import AnnotatorSettings, Failure, Result
from .arrow import parquet
from .batches import Batch, Shard, cut_batches, cut_shards
from .formats import FORMATS, format_of
from .identity import identity_of
from .manifest import FAILURES, Output
from .pool import Outcome, Pool
from .progress import Progress
from .settings import AnnotationSettings, RunSettings
from .sources import PARQUET, InputFile, Item, input_files, read_items
from .workers import LocalPool

# The number of processes that may die of a batch before it is divided, and of a document before it is set aside.
MOST_DEATHS, MOST_DEATHS_ALONE = 2, 3
# The number of failures shown if there were too many.
MOST_NAMED = 3
# Seconds between two checks of the processes.
LOOK = 0.5


@dataclass(frozen=True)
class Annotated:
    """A finished annotation.

    sums (dict): "shards", "documents", "words" and "failures" of the whole output.
    seconds (float): Seconds this run took after the first process had loaded the pipeline; 0 if there was nothing to
        do.
    words (int), documents (int): Numbers of words and documents that this run annotated.
    """

    sums: dict[str, int]
    seconds: float
    words: int
    documents: int


def annotate(
    settings: AnnotationSettings,
    how: RunSettings,
    warn: Callable[[str], None] = print,
    quiet: bool = False,
) -> Annotated:
    """Annotate all documents of the input and write them to the output folder.

    If that holds a part of them, the run continues from there.

    warn (Callable): Called with each warning.
    quiet (bool): Show no progress.
    RAISES (ValueError): A setting does not fit, found before anything is loaded; the pipeline cannot be loaded; or more
        documents failed than are allowed. Finished shards are kept.
    RAISES (OSError): The output cannot be written.
    """
    files, others = input_files(settings.input)
    if others:
        warn(f"Not read, as their suffix is unknown: {in_short(others)}")
    format_name = settings.format or _format_of_input(files)
    format_ = format_of(format_name)
    if any(file.suffix == PARQUET for file in files):
        parquet()
    _check_apart(settings.input, settings.output)
    with sole_writer(settings.output):
        output = Output(settings.output, format_, identity_of(settings, format_name, files), warn)
        if output.complete:
            return Annotated(output.finish(), 0.0, 0, 0)
        with _pool(settings, how, format_name) as pool, Progress(sum(file.size for file in files), quiet) as progress:
            run = _Run(settings, how, output, pool, progress)
            run.annotate_all(files)
            return Annotated(output.finish(), progress.seconds, progress.words, progress.documents)


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pool(settings: AnnotationSettings, how: RunSettings, format_name: str) -> Pool:
    each = AnnotatorSettings(
        settings.pipeline,
        format_name,
        settings.keys,
        settings.spans_keys,
        settings.max_length,
        settings.code,
        threads=None,
        top_tags=settings.top_tags,
    )
    if how.ray is not None:
        from .on_ray import RayPool

        return RayPool(each, how.ray, how.processes, bool(how.gpus), how.timeout)
    count = how.processes or len(how.gpus) or cores()
    gpus: list[int | None] = [how.gpus[i % len(how.gpus)] if how.gpus else None for i in range(count)]
    return LocalPool(replace(each, threads=max(1, cores() // count) if count > 1 else None), gpus, how.timeout)


def _format_of_input(files: Sequence[InputFile]) -> str:
    suffixes = {file.suffix for file in files}
    return next((name for name, one in FORMATS.items() if suffixes == {one.suffix}), "jsonl")


def _check_apart(source: Path, target: Path) -> None:
    """Check that input and output are apart.

    RAISES (StorageError): One contains the other, so the output would be read as input.
    """
    inside, outside = source.resolve(), target.resolve()
    if inside == outside or inside in outside.parents or outside in inside.parents:
        raise StorageError(
            f"the output {target} and the input {source} contain one another. Name another output folder."
        )


@dataclass
class _Open:
    """A shard that is not finished yet.

    shard (Shard): The shard.
    left (int): Number of documents that are neither annotated nor set aside.
    results (dict): The results of finished batches, by the position of their first document.
    """

    shard: Shard
    left: int
    results: dict[int, Result] = field(default_factory=dict)


class _Run:
    """One run.

    It reads only as far ahead as processes wait for work, so that no more than their current work is in memory.
    """

    def __init__(
        self, settings: AnnotationSettings, how: RunSettings, output: Output, pool: Pool, progress: Progress
    ) -> None:
        self._settings, self._how = settings, how
        self._output, self._pool, self._progress = output, pool, progress
        self._open: dict[int, _Open] = {}
        self._again: deque[Batch] = deque()
        self._failed = output.failures
        self._named: list[Failure] = []

    def annotate_all(self, files: Sequence[InputFile]) -> None:
        """Annotate everything that is not finished yet."""
        batches = self._batches(files)
        self._check_errors()
        under_way, more, begun = 0, True, False
        while more or self._again or under_way:
            while self._pool.idle() and (more or self._again):
                batch = self._again.popleft() if self._again else next(batches, None)
                if batch is None:
                    more = False
                    break
                if not begun:
                    self._progress.begin()
                    begun = True
                self._pool.submit(batch)
                under_way += 1
            if not under_way and not more and not self._again:
                break
            for outcome in self._pool.wait(LOOK):
                under_way -= 1
                self._take(outcome)

    def _batches(self, files: Sequence[InputFile]) -> Iterator[Batch]:
        items: Iterator[Item] = (item for file in files for item in read_items(file, self._settings.keys))
        for shard in cut_shards(items, self._settings.shard_size):
            if self._output.is_done(shard):
                self._progress.skip(sum(item.share for item in shard.items))
                continue
            self._open[shard.number] = _Open(shard, len(shard.items))
            yield from cut_batches(shard, self._how.batch_size, self._how.batch_bytes)

    def _take(self, outcome: Outcome) -> None:
        batch, result = outcome.batch, outcome.result
        if result is None:
            result = self._after_death(batch, outcome.death)
            if result is None:
                return
        self._progress.add(
            sum(item.share for item in batch.items),
            result.documents,
            result.words,
            len(result.failures),
            self._pool.processes,
        )
        open_ = self._open[batch.shard]
        open_.results[batch.start] = result
        open_.left -= len(batch.items)
        for failure in result.failures:
            self._output.add_failure(failure)
        self._failed += len(result.failures)
        self._named = [*self._named, *result.failures][:MOST_NAMED]
        if not open_.left:
            self._write(self._open.pop(batch.shard))
        self._check_errors()

    def _after_death(self, batch: Batch, death: str) -> Result | None:
        """Try the batch of a dead process again, or divide it if its processes have died repeatedly.

        So the document that kills processes is found.

        RETURNS (Result | None): That of a document that is set aside.
        """
        deaths = batch.deaths + 1
        again = replace(batch, deaths=deaths)
        if len(batch.items) == 1 and deaths >= MOST_DEATHS_ALONE:
            place = batch.items[0].place
            return Result(b"", 0, 0, [Failure(place, place, f"{death}, {deaths} times in a row, while annotating it")])
        if len(batch.items) > 1 and deaths >= MOST_DEATHS:
            self._again.extendleft(reversed(again.parts()))
        else:
            self._again.appendleft(again)
        return None

    def _write(self, open_: _Open) -> None:
        results = [open_.results[start] for start in sorted(open_.results)]
        self._output.write(
            open_.shard,
            [result.packed for result in results if result.documents],
            sum(result.documents for result in results),
            sum(result.words for result in results),
            [failure for result in results for failure in result.failures],
        )

    def _check_errors(self) -> None:
        """Check the number of failed documents.

        RAISES (DataError): It exceeds the limit.
        """
        most = self._how.max_errors
        if 0 <= most < self._failed:
            named = "".join(f"  {failure.place}: {failure.error}\n" for failure in self._named)
            raise DataError(
                f"{self._failed:,} documents failed, but --max-errors is {most:,}:\n{named}All of them are in "
                f"{self._output.path / FAILURES}. Finished shards are kept: the same command with another --max-errors "
                f"(-1: any number) continues."
            )
