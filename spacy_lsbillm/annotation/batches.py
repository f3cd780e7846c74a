"""How the input is divided: into shards, of which each becomes a file, and these into batches, of which each goes to
one process. Shards follow from the input and their size alone, so that they are the same whenever a run goes on.
Batches are cut by the length of their texts, so that one with long documents takes no longer than one with short ones,
and a very long document keeps one process busy and no other."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .sources import Item

# Bytes of text after which a shard ends, however few documents it has: while it is written it is in memory.
SHARD_BYTES = 64 * 1024 * 1024
# Into which a batch is divided that has killed processes.
PARTS = 8


@dataclass(frozen=True)
class Shard:
    """Consecutive documents of the input.

    number (int): From 0.
    items (list[Item]): Its documents.
    """

    number: int
    items: list[Item]

    @property
    def ends(self) -> tuple[str, str]:
        """Where its first and its last document stand."""
        return self.items[0].place, self.items[-1].place


@dataclass(frozen=True)
class Batch:
    """What one process annotates at once: consecutive documents of a shard.

    shard (int): Its number.
    start (int): Of the first document in the shard.
    items (list[Item]): The documents.
    deaths (int): Processes that have died of it, or while they were at it.
    """

    shard: int
    start: int
    items: list[Item]
    deaths: int = 0

    def parts(self) -> list["Batch"]:
        """Smaller batches of it, at most `PARTS`. Which of them is to blame is not known: each starts with one death.
        Processes take long to start: with halves many more would die until the one document is found."""
        size = -(-len(self.items) // PARTS)
        return [Batch(self.shard, self.start + i, self.items[i : i + size], 1) for i in range(0, len(self.items), size)]


def cut_shards(items: Iterable[Item], shard_size: int, shard_bytes: int = SHARD_BYTES) -> Iterator[Shard]:
    """Shards of so many documents, or fewer where these are long."""
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
    """Batches of a shard: at most so many documents, and at most so many bytes of text unless one document alone has
    more."""
    start, size = 0, 0
    for i, item in enumerate(shard.items):
        if i > start and (i - start == batch_size or size + item.size > batch_bytes):
            yield Batch(shard.number, start, shard.items[start:i])
            start, size = i, 0
        size += item.size
    yield Batch(shard.number, start, shard.items[start:])
