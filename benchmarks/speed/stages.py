"""Where the time goes: one run of a pipeline, with a clock around each stage."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from spacy.language import Language
from spacy_transformers.layers import trfs2arrays

import spacy_lsbillm.alignment.batches as batches
import spacy_lsbillm.layers.billm_model as billm_model
import spacy_lsbillm.layers.shim as shim
from spacy_lsbillm.backbone import Backbone

from .corpora import Corpus
from .turns import CLOCKS

FUNCTIONS: list[tuple[Any, str, str]] = [
    (batches, "cut_pieces", "tokenise"),
    (batches, "align", "align"),
    (billm_model, "make_batch", "batch"),
    (Backbone, "states", "forward"),
    (shim, "vectors_of", "pool"),
    (billm_model.VectorBatch, "of_tokens", "split"),
]
REST = "spaCy and the rest"


class Stages:
    """Seconds by stage. The time of a nested stage counts only for itself."""

    def __init__(self, clock: str):
        self.seconds: dict[str, float] = {}
        self._clock = CLOCKS[clock]
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside the block for `name`."""
        self._count()
        self._open.append(name)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def wrap(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function with its time counted for the stage `name`."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return counted

    def _count(self) -> None:
        now = self._clock()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now


def profile(nlp: Language, corpus: Corpus, clock: str) -> dict[str, float]:
    """Seconds by stage in one run over the texts, after a first one that does not count."""
    list(nlp.pipe(corpus.texts[:32]))
    stages = Stages(clock)
    with ExitStack() as stack:
        for owner, name, stage in FUNCTIONS:
            plain = vars(owner)[name]
            bound = isinstance(plain, classmethod)
            wrapped = stages.wrap(getattr(owner, name), stage)
            stack.enter_context(patch.object(owner, name, staticmethod(wrapped) if bound else wrapped))
        for name, pipe in nlp.pipeline:
            if name == "transformer":
                continue
            for node in pipe.model.walk():
                if node.name == trfs2arrays.__name__:
                    stack.enter_context(patch.object(node, "_func", stages.wrap(node._func, "listen")))
            if hasattr(pipe, "__dict__"):
                stack.enter_context(patch.object(pipe, "predict", stages.wrap(pipe.predict, f"{name}: head")))
                decode = stages.wrap(pipe.set_annotations, f"{name}: annotations")
                stack.enter_context(patch.object(pipe, "set_annotations", decode))
        with stages.stage(REST):
            list(nlp.pipe(corpus.texts))
    return stages.seconds
