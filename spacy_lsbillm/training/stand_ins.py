"""What spaCy's loop gets in place of a pipeline, while a resumed run is replayed or where several processes train."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from spacy.language import Language
from spacy.training import Example
from thinc.api import Optimizer

from ..pipeline.whole_batch import share_of
from .ranks import Ranks


class Run(Protocol):
    """The run that a pipeline is trained in.

    replaying (bool): Whether it is being replayed up to its checkpoint.
    ranks (Ranks): The processes that share it.
    """

    replaying: bool
    ranks: Ranks


class LoopPipeline:
    """The part of a pipeline that spaCy's loop uses.

    During a replay it does nothing. With several processes it is updated with a share of each batch.
    """

    def __init__(self, nlp: Language, run: Run, exclude: Sequence[str]):
        self._nlp = nlp
        self._run = run
        self._added = _AddedGradients(nlp, run.ranks, exclude)

    @property
    def pipeline(self) -> list[Any]:
        """The components, as the loop finishes their updates."""
        if self._run.replaying:
            return []
        # Between the updates of a step and the optimizer's steps, the loop iterates over the components once.
        return [("", self._added), *self._nlp.pipeline] if self._run.ranks.size > 1 else self._nlp.pipeline

    def update(self, examples: Sequence[Example], **kwargs: Any) -> Any:
        """Update the pipeline with this process's share of a batch."""
        if self._run.replaying:
            return None
        if self._run.ranks.size == 1:
            return self._nlp.update(examples, **kwargs)
        share = self._run.ranks.share(examples)
        with share_of(examples):
            return self._nlp.update(share, **kwargs) if share else None

    def use_params(self, params: Any) -> Any:
        """Use other parameter values, as `nlp.use_params` does."""
        return self._nlp.use_params(params)


class _AddedGradients:
    """Acts as the first component in a step: it sums the gradients of all processes."""

    is_trainable = True
    model = "none"

    def __init__(self, nlp: Language, ranks: Ranks, exclude: Sequence[str]):
        self._nlp, self._ranks, self._exclude = nlp, ranks, exclude

    def finish_update(self, optimizer: Optimizer) -> None:
        """Sum the gradients; the optimizer is used by the components that follow."""
        self._ranks.add_gradients(self._nlp, self._exclude)


class EvaluatedSteps:
    """Replaces `eval_frequency`, for which the loop tests whether `step % eval_frequency` is 0.

    Recorded rows may have been evaluated at another frequency.
    """

    def __init__(self, is_evaluated: Callable[[int], bool]):
        self._is_evaluated = is_evaluated

    def __rmod__(self, step: int) -> int:
        return 0 if self._is_evaluated(step) else 1


class NotSaved:
    """Replaces the pipeline that the loop would save during a replay, which is not worth keeping."""

    def to_disk(self, path: Path) -> None:
        """Write nothing, as these models are not kept."""
