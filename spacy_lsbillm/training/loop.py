"""spaCy's training loop with checkpoints around it.

The loop stays spaCy's. Inside `CheckpointedLoop.around`, five names of `spacy.training.loop` (spaCy 3.8) are replaced
by functions that call spaCy's own:

- `create_train_batches`: records the states of the random generators before batches are drawn, and a digest of their
  texts;
- `train_while_improving`: gets a pipeline that does nothing while a resumed run is replayed, and writes checkpoints
  between steps;
- `create_before_to_disk_callback`: nothing is saved during the replay;
- `clean_output_dir`: a resumed run keeps its `model-best`;
- `timer`: continues from the seconds of the checkpoint.

To resume a run, spaCy's own loop replays it from step 0: batches are drawn, schedules are stepped and rows are printed,
but the pipeline is neither updated nor evaluated. Then weights, optimizer and random generators are restored. So
everything that the loop keeps in local variables, and that corpora, batchers and schedules keep, is as it was.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spacy.language import Language
from spacy.training import loop as spacy_loop
from thinc.api import Optimizer, get_current_ops
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]
from wasabi import msg

from ..errors import DataError, StorageError
from .checkpoint import Checkpoint, Evaluation, remove_old_checkpoints, restore_best, save_checkpoint
from .draws import Draws
from .interval import Interval
from .random_state import random_state, reseed_cupy, reseed_rank, restore_random_state
from .ranks import Ranks
from .stand_ins import EvaluatedSteps, LoopPipeline, NotSaved
from .state import TrainingState, collect_state, restore_state

Step = tuple[Any, dict[str, Any], bool | None]


class Preempted(BaseException):
    """The training was asked to stop, and its whole state is in the last checkpoint.

    It is not an `Exception`, as spaCy's loop would report that with its own message.

    step (int | None): Step of the checkpoint; None: there was none yet.
    first (bool): Whether this process is the one that prints.
    """

    def __init__(self, step: int | None, first: bool = True):
        super().__init__(step)
        self.step, self.first = step, first


class CheckpointedLoop:
    """One training with checkpoints.

    output (Path | None): The folder of the run; None if nothing is kept.
    identity (dict): What must be the same for the run to continue.
    interval (Interval): When checkpoints are due, besides at the end and when the run is asked to stop.
    resumed (tuple[Checkpoint, Path] | None): The checkpoint to continue from, and its folder.
    ranks (Ranks): The processes that share the training.
    stop_asked (bool): Set it to write a checkpoint after the current step and raise `Preempted`.
    """

    def __init__(
        self,
        output: Path | None,
        identity: dict[str, Any],
        interval: Interval,
        resumed: tuple[Checkpoint, Path] | None,
        ranks: Ranks,
    ):
        self.ranks = ranks
        self.stop_asked = False
        self.replaying = resumed is not None
        self._output = output
        self._identity = identity
        self._interval = interval
        self._resumed: Checkpoint | None = resumed[0] if resumed else None
        self._resumed_folder: Path | None = resumed[1] if resumed else None
        self._evaluations = list(self._resumed.evaluations) if self._resumed else []
        self._saved_step = self._resumed.step if self._resumed else None
        self._draws = Draws(self._resumed.part("draws/") if self._resumed else {})
        # The replaced functions, by name.
        self._spacy: dict[str, Callable[..., Any]] = {}
        self._begun: float | None = None
        self._saved_at = 0.0

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """Context in which `spacy.training.loop.train` performs this run."""
        stand_ins: dict[str, Callable[..., Any]] = {
            "create_train_batches": self._create_train_batches,
            "train_while_improving": self._train_while_improving,
            "create_before_to_disk_callback": self._create_before_to_disk_callback,
            "clean_output_dir": self._clean_output_dir,
            "timer": self._timer,
        }
        self._spacy = {name: getattr(spacy_loop, name) for name in stand_ins}
        for name, stand_in in stand_ins.items():
            setattr(spacy_loop, name, stand_in)
        try:
            yield
        finally:
            for name, original in self._spacy.items():
                setattr(spacy_loop, name, original)

    def _timer(self) -> float:
        """spaCy's loop calls it at the start and subtracts the result from later calls."""
        now = time.monotonic()
        if self._begun is None:
            self._begun = now - (self._resumed.seconds if self._resumed else 0.0)
            self._saved_at = now
            return self._begun
        return now

    def _clean_output_dir(self, path: Path | None) -> None:
        if self._resumed_folder is None:
            self._spacy["clean_output_dir"](path)
        elif self.ranks.first and self._output is not None:
            restore_best(self._resumed_folder, self._output)
            remove_old_checkpoints(self._output)

    def _create_before_to_disk_callback(self, callback: Callable[[Language], Language] | None) -> Callable[..., Any]:
        modified = self._spacy["create_before_to_disk_callback"](callback)
        return lambda nlp: NotSaved() if self.replaying else modified(nlp)

    def _create_train_batches(self, *args: Any, **kwargs: Any) -> Iterator[tuple[int, Any]]:
        batches = self._spacy["create_train_batches"](*args, **kwargs)
        return self._draws.of(batches, lambda: self.replaying)

    def _train_while_improving(
        self,
        nlp: Language,
        optimizer: Optimizer,
        train_data: Iterator[tuple[int, Any]],
        evaluate: Callable[[], tuple[float, dict[str, Any]]],
        *,
        eval_frequency: int,
        exclude: list[str],
        before_update: Callable[[Language, dict[str, Any]], None] | None,
        **settings: Any,
    ) -> Iterator[Step]:
        recorded = {row.step: row for row in self._evaluations}

        def evaluate_or_recall() -> tuple[float, dict[str, Any]]:
            if self.replaying:
                row = recorded[self._draws.step]
                return row.score, row.other_scores
            return self.ranks.evaluate(nlp, evaluate)

        def is_evaluated(step: int) -> bool:
            return step in recorded if self.replaying else step % eval_frequency == 0

        steps = self._spacy["train_while_improving"](
            LoopPipeline(nlp, self, exclude),
            optimizer,
            train_data,
            evaluate_or_recall,
            eval_frequency=EvaluatedSteps(is_evaluated),
            exclude=exclude,
            before_update=before_update and (lambda _, progress: before_update(nlp, progress)),
            **settings,
        )
        if self._resumed is not None:
            yield from self._replay(steps, recorded)
            self._put_into_state(nlp, optimizer, exclude)
        else:
            self._reseed(nlp, -1)
        info: dict[str, Any] | None = None
        for batch, info, is_best in steps:
            if is_best is not None:
                self._check_batches()
                info["losses"].update(self._losses_of_all(info["losses"]))
                row = {name: float(loss) for name, loss in info["losses"].items()}
                self._evaluations.append(Evaluation(info["step"], row, float(info["score"]), info["other_scores"]))
            yield batch, info, is_best
            # spaCy starts new sums after an evaluation.
            losses = {} if is_best is not None else info["losses"]
            stop = self.ranks.on_any_rank(self.stop_asked)
            if stop or self._due(info["step"]):
                self._save(nlp, optimizer, exclude, info["step"], losses)
            if stop:
                raise Preempted(self._saved_step, self.ranks.first)
        if self._interval.wanted and info is not None and info["step"] != self._saved_step:
            self._save(nlp, optimizer, exclude, info["step"], {} if info["score"] is not None else info["losses"])

    def _due(self, step: int) -> bool:
        due = self._interval.due(step + 1, time.monotonic() - self._saved_at)
        # Clocks differ between processes; steps do not.
        return self.ranks.of_first(due) if self._interval.seconds else due

    def _check_batches(self) -> None:
        """Check that all processes draw the same batches.

        RAISES (DataError): They do not. The first process says so.
        """
        digests = self.ranks.gather(self._draws.digest)

        def check() -> None:
            if len(set(digests)) > 1:
                raise DataError(
                    "the processes of this training have drawn different batches. Its reader or batcher depends on "
                    "something that differs between them, such as the time, or the order of files in a folder."
                )

        self.ranks.agreed(check)

    def _losses_of_all(self, losses: dict[str, Any]) -> dict[str, Any]:
        """The losses summed over all processes."""
        if self.ranks.size == 1:
            return losses
        sums: dict[str, float] = {}
        for one in self.ranks.gather({name: float(loss) for name, loss in losses.items()}):
            for name, loss in one.items():
                sums[name] = sums.get(name, 0.0) + loss
        return sums

    def _replay(self, steps: Iterator[Step], recorded: dict[int, Evaluation]) -> Iterator[Step]:
        """Replay the steps up to the checkpoint.

        RAISES (StorageError): The loop ends before it, or gives other batches.
        """
        assert self._resumed is not None
        last = self._resumed.step
        # The losses are summed over all processes before they are shown.
        kept = self._resumed.part("losses/") if self.ranks.first else {}
        pending = {name: value.numpy()[()] for name, value in kept.items()}
        with tqdm(total=last + 1, desc=f"going on after step {last}", unit=" steps", leave=False, delay=2) as progress:
            for batch, info, is_best in steps:
                step = info["step"]
                # The dict in which the loop sums the losses.
                info["losses"].update(recorded[step].losses if is_best is not None else pending if step == last else {})
                progress.update()
                if is_best is not None:
                    # A row follows, which would appear behind the bar.
                    progress.clear()
                yield batch, info, None if is_best is None else False
                if self.ranks.on_any_rank(self.stop_asked):
                    raise Preempted(last, self.ranks.first)
                if step == last:
                    break
            else:
                raise StorageError(
                    f"the run ends before step {last}, that of its checkpoint: its corpus is shorter, or max_steps, "
                    f"max_epochs or patience are lower than they were."
                )
        if self._draws.digest != self._resumed.batches:
            raise StorageError(
                "the training corpus gives other batches than it did before the checkpoint. Either it was changed, or "
                "its reader or batcher depends on something that no checkpoint contains, such as the time."
            )

    def _put_into_state(self, nlp: Language, optimizer: Optimizer, exclude: Sequence[str]) -> None:
        assert self._resumed is not None
        state = TrainingState(self._resumed.part("state/"), self._resumed.facts)
        restore_state(state, nlp, optimizer, exclude)
        restore_random_state(self._resumed.part("random/"))
        self._reseed(nlp, self._resumed.step)
        self._resumed.tensors.clear()
        self.replaying = False

    def _save(
        self,
        nlp: Language,
        optimizer: Optimizer,
        exclude: Sequence[str],
        step: int,
        losses: dict[str, Any],
    ) -> None:
        losses = self._losses_of_all(losses)
        self._saved_at = time.monotonic()
        if self.ranks.first and self._output is not None:
            self._write(nlp, optimizer, exclude, step, losses)
        # All processes must agree on whether the end of a run needs another checkpoint.
        self._saved_step = self.ranks.of_first(self._saved_step)
        self._reseed(nlp, step)

    def _write(
        self, nlp: Language, optimizer: Optimizer, exclude: Sequence[str], step: int, losses: dict[str, Any]
    ) -> None:
        assert self._output is not None
        state = collect_state(nlp, optimizer, exclude)
        tensors = {f"state/{name}": value for name, value in state.tensors.items()}
        tensors |= {f"random/{name}": value for name, value in random_state().items()}
        tensors |= {f"draws/{name}": value for name, value in self._draws.as_tensors().items()}
        tensors |= {f"losses/{name}": _as_tensor(value) for name, value in losses.items()}
        seconds = time.monotonic() - (self._begun or 0.0)
        checkpoint = Checkpoint(
            step,
            self._identity,
            self._evaluations,
            self._draws.digest,
            seconds,
            asdict(self._interval),
            self.ranks.size,
            state.facts,
            tensors,
        )
        try:
            save_checkpoint(self._output, checkpoint)
            self._saved_step = step
        except OSError as error:
            before = "there is none yet" if self._saved_step is None else f"that of step {self._saved_step} remains"
            msg.warn(f"The checkpoint of step {step} could not be written ({error}): {before}. The training continues.")

    def _reseed(self, nlp: Language, step: int) -> None:
        """Reseed generators that no checkpoint contains, whether or not the run was stopped here."""
        seed = nlp.config.interpolate()["training"]["seed"] or 0
        reseed_rank(self.ranks.rank, seed, step + 1)
        if step >= 0:
            reseed_cupy(get_current_ops().xp, seed, step)


def _as_tensor(loss: Any) -> Tensor:
    # CuPy's numbers must be copied from the GPU; a sum in single precision stays in single precision.
    return torch.from_numpy(np.array(loss.get() if hasattr(loss, "get") else loss))
