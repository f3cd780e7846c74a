"""The random states from which a training drew its batches."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from spacy.training import Example
from torch import Tensor

from .random_state import drawn_from, random_state, restore_random_state


class Draws:
    """The random states from which batches were drawn.

    With them the same batches can be drawn again without the steps in between.

    For each draw that used a generator, the generator's state before it is kept, unless the previous draw left it in
    this state: for a corpus that is shuffled in each epoch, one state per epoch.

    kept (Mapping[str, Tensor]): What `as_tensors` returned.
    step (int): The number of the last batch, -1 before the first.
    """

    def __init__(self, kept: dict[str, Tensor]):
        self.step = -1
        self._kept: dict[int, dict[str, Tensor]] = {}
        for name, state in kept.items():
            step, _, generator = name.partition("/")
            self._kept.setdefault(int(step), {})[generator] = state
        self._texts = hashlib.sha256()

    @property
    def digest(self) -> str:
        """A digest of the texts of all batches so far, in order."""
        return self._texts.hexdigest()

    def as_tensors(self) -> dict[str, Tensor]:
        """The kept states, by step and generator."""
        return {f"{step}/{name}": x for step, states in self._kept.items() for name, x in states.items()}

    def of(self, batches: Iterator[tuple[int, Any]], replaying: Callable[[], bool]) -> Iterator[tuple[int, Any]]:
        """Yield the same batches. During a replay, generators are set to their recorded states."""
        left: dict[str, Tensor] = {}
        while True:
            if replaying():
                restore_random_state(left | self._kept.get(self.step + 1, {}))
            before = random_state()
            try:
                epoch, batch = next(batches)
            except StopIteration:
                return
            after = random_state()
            self.step += 1
            if not replaying():
                used = set(drawn_from(before, after)) & set(drawn_from(left, before))
                if used:
                    self._kept[self.step] = {name: before[name] for name in used}
            left = after
            batch = list(batch)
            self._add(batch)
            yield epoch, batch

    def _add(self, batch: Iterable[Example]) -> None:
        for example in batch:
            self._texts.update(example.reference.text.encode("utf8", "surrogatepass"))
            self._texts.update(b"\0")
