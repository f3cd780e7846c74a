"""Dividing the input into shards, one per output file, and shards into batches, one per call of a process.

Shards depend only on the input and their size, so that they are the same when a run is continued. Batches are limited
by the length of their texts: so a batch with long documents takes no longer than one with short ones, and a very long
document occupies only one process.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .sources import Item

# A shard ends after this many bytes of text, however few documents it has, as it is held in memory while it is written.
SHARD_BYTES = 64 * 1024 * 1024
# The number of parts into which a batch is divided that has killed processes.
PARTS = 8


@dataclass(frozen=True)
class Shard:
    """Consecutive documents of the input that become one file.

    number (int): From 0.
    items (list[Item]): Its documents.
    """

    number: int
    items: list[Item]

    @property
    def ends(self) -> tuple[str, str]:
        """Where its first and its last document are in the input."""
        return self.items[0].place, self.items[-1].place


@dataclass(frozen=True)
class Batch:
    """Consecutive documents of a shard that one process annotates at once.

    shard (int): Number of the shard.
    start (int): Position of its first document in the shard.
    items (list[Item]): The documents.
    deaths (int): Number of processes that died while they annotated it.
    """

    shard: int
    start: int
    items: list[Item]
    deaths: int = 0

    def parts(self) -> list["Batch"]:
        """Divide it into at most `PARTS` smaller batches, to find the document that kills processes.

        Each part starts with one death, as any may be the cause. Starting a process takes long: with halves, many more
        would die until the document is found.
        """
        size = -(-len(self.items) // PARTS)
        return [Batch(self.shard, self.start + i, self.items[i : i + size], 1) for i in range(0, len(self.items), size)]


def cut_shards(items: Iterable[Item], shard_size: int, shard_bytes: int = SHARD_BYTES) -> Iterator[Shard]:
    """Divide items into shards of `shard_size` documents, or fewer if these are long."""
    number, taken, size = 0, list[Item](), 0
    for item in items:
        taken.append(item)
        size += item.size
        if len(taken) == shard_size or size >= shard_bytes:
            yield Shard(number, taken)
            number, taken, size = number + 1, [], 0
    if taken:
        yield Shard(number, taken)


def cut_batches(shard: Shard, batch_size: int, batch_bytes: int) -> Iterator[Batch]:
    """Divide a shard into batches of at most `batch_size` documents and at most `batch_bytes` bytes of text.

    A single longer document gets its own batch.
    """
    start, size = 0, 0
    for i, item in enumerate(shard.items):
        if i > start and (i - start == batch_size or size + item.size > batch_bytes):
            yield Batch(shard.number, start, shard.items[start:i])
            start, size = i, 0
        size += item.size
    yield Batch(shard.number, start, shard.items[start:])
