"""The trainings of a search in a database, through Optuna.

Several processes share them, each training is run once, and finished ones are kept when a process is killed.
"""

import contextlib
import json
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState

from ..errors import SettingError, StorageError
from ..files import write_text
from .liveness import TOKEN, is_dead, new_owner, release, signs_of_life
from .training import Training
from .ways import way_of

# Given the trainings that are finished or running, whether another one may start.
Fits = Callable[[Collection[Training], Training], bool]
# Attributes of a trial in the database. "cell" was the name of a training in earlier versions.
TRAINING, RECORD = "cell", "record"
SQLITE = "sqlite:///"
IDENTITY = "search.json"


def no_limit(taken: Collection[Training], training: Training) -> bool:
    """Allow every training: the limit of a search without a budget."""
    return True


@dataclass(frozen=True)
class TrainingResult:
    """A finished training.

    training (Training): The training.
    score (float): The best score on the development set; for a shared training the mean over its masks.
    record (dict): What else the training returned; for a shared training with the scores under "by_mask".
    """

    training: Training
    score: float
    record: dict[str, Any]

    @property
    def by_mask(self) -> dict[str, float]:
        """The score of the mask, or of each mask of a shared training."""
        return dict(self.record.get("by_mask") or {self.training.mask: self.score})

    @property
    def by_way(self) -> dict[str, float]:
        """The score of the way, or of each way of a shared training."""
        return {way_of(mask, self.training.settings): score for mask, score in self.by_mask.items()}


class Study:
    """The stored trainings of one search. Each is a trial of an Optuna study.

    url (str): The URL of a database, such as sqlite:///search.db.
    identity (dict): What distinguishes this search from others, such as its config.
    RAISES (StorageError): The database holds another search, or cannot be used.
    """

    NAME = "search-mask"

    def __init__(self, url: str, identity: dict[str, Any]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._url = url
        # SQLite locks no rows: without this lock two processes could take the same training.
        self._lock = FileLock(url.removeprefix(SQLITE) + ".lock") if url.startswith(SQLITE) else None
        with self._storage_errors(Exception), self._exclusive():
            # SQLAlchemy and the database drivers raise errors of many kinds.
            storage = optuna.storages.RDBStorage(url)
            self._study = optuna.create_study(
                storage=storage, study_name=self.NAME, direction="maximize", load_if_exists=True
            )
            stored = self._study.user_attrs.get("identity")
            if stored is None:
                self._study.set_user_attr("identity", identity)
        if stored is not None:
            _refuse_another(stored, identity, f"the storage {url!r}")

    def results(self) -> dict[Training, TrainingResult]:
        """All finished trainings with their results, from any process."""
        results = {}
        for trial in self._trials(TrialState.COMPLETE):
            training, score = _training_of(trial), trial.value
            if training is not None and score is not None:
                results[training] = TrainingResult(training, score, json.loads(trial.user_attrs[RECORD]))
        return results

    def trainings(self) -> set[Training]:
        """All trainings that are finished or running, here or in other processes.

        Trainings held by a dead process are released.
        """
        with self._storage_errors(StorageInternalError), self._exclusive():
            self._give_up_dead()
            return self._finished_or_running()

    def run_next(
        self,
        trainings: Sequence[Training],
        train: Callable[[Training], tuple[float, dict[str, Any]]],
        fits: Fits = no_limit,
    ) -> Training | None:
        """Run the first of several trainings that is neither finished nor running in another process.

        Trainings held by a dead process are released.

        train (Callable): Runs a training; returns its score and its record.
        fits (Callable): Whether a training may start, given the ones that are finished or running.
        RETURNS (Training | None): The training that was run; None if none was left.
        RAISES (SettingError): The score is not a finite number.
        RAISES (StorageError): The storage cannot be written, for example because the disk is full.
        """
        with self._storage_errors(StorageInternalError):
            return self._run_next(trainings, train, fits)

    def _run_next(
        self, trainings: Sequence[Training], train: Callable[[Training], tuple[float, dict[str, Any]]], fits: Fits
    ) -> Training | None:
        trial = self._take(trainings, fits)
        if trial is None:
            return None
        try:
            return self._train(trial, train)
        finally:
            # Also if the storage could not record the end: other processes must not take it for running.
            release(trial.user_attrs[TOKEN])

    def _train(self, trial: optuna.Trial, train: Callable[[Training], tuple[float, dict[str, Any]]]) -> Training:
        training = Training(**json.loads(trial.user_attrs[TRAINING]))
        try:
            with signs_of_life(trial):
                score, record = train(training)
            if not math.isfinite(score):
                raise SettingError(
                    f"the training under {training.way!r} with seed {training.seed} has the score {score}, which "
                    f"cannot be compared. Lower the learning rate."
                )
        except BaseException:
            # Another process may have marked it as failed already.
            with contextlib.suppress(ValueError, StorageInternalError):
                self._study.tell(trial, state=TrialState.FAIL)
            raise
        attributes = {TRAINING: json.dumps(asdict(training)), RECORD: json.dumps(record)}
        try:
            trial.set_user_attr(RECORD, attributes[RECORD])
            self._study.tell(trial, score)
        except optuna.exceptions.UpdateFinishedTrialError:
            # Another process marked the trial as failed, after too long without a sign of life. The result still
            # counts.
            self._study.add_trial(optuna.trial.create_trial(value=score, user_attrs=attributes))
        return training

    def _give_up_dead(self) -> None:
        for trial in self._trials(TrialState.RUNNING):
            if is_dead(trial):
                # It may have finished since it was listed.
                with contextlib.suppress(ValueError):
                    self._study.tell(trial.number, state=TrialState.FAIL)

    def _finished_or_running(self) -> set[Training]:
        trainings = map(_training_of, self._trials(TrialState.RUNNING, TrialState.COMPLETE))
        return {training for training in trainings if training is not None}

    def _take(self, trainings: Sequence[Training], fits: Fits) -> optuna.Trial | None:
        """Begin a trial of the first training that no process has taken and that fits."""
        with self._exclusive():
            self._give_up_dead()
            taken = self._finished_or_running()
            free = next((training for training in trainings if training not in taken and fits(taken, training)), None)
            if free is None:
                return None
            attributes = {TRAINING: json.dumps(asdict(free)), **new_owner()}
            # Added together with its attributes, so that other processes never see it without them.
            self._study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs=attributes))
            others = self._trials(TrialState.RUNNING, TrialState.COMPLETE)
            mine = next(one for one in others if one.user_attrs.get(TOKEN) == attributes[TOKEN])
            before = {
                training for one in others if one.number < mine.number and (training := _training_of(one)) is not None
            }
            if free in before or not fits(before, free):
                # Another process was faster: it took this training, or another that leaves no budget for it. This can
                # happen in a database that is not locked here.
                self._study.tell(mine.number, state=TrialState.FAIL)
                return None
            return optuna.Trial(self._study, mine._trial_id)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    @contextlib.contextmanager
    def _storage_errors(self, errors: type[Exception]) -> Iterator[None]:
        """Name the storage in its errors, and give the cause: the text of Optuna's own error does not."""
        try:
            yield
        except errors as error:
            reason = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
            text = str(reason).splitlines()[0]
            raise StorageError(f"the storage {self._url!r} cannot be used: {text}") from error

    def _exclusive(self) -> contextlib.AbstractContextManager[Any]:
        return self._lock if self._lock is not None else contextlib.nullcontext()


def claim_folder(folder: Path, identity: dict[str, Any]) -> None:
    """Mark a folder as holding the results of a search.

    RAISES (StorageError): The folder holds the results of another search.
    """
    path = folder / IDENTITY
    with FileLock(folder / f".{IDENTITY}.lock"):
        if not path.exists():
            write_text(path, json.dumps(identity, indent=1) + "\n")
    _refuse_another(json.loads(path.read_text(encoding="utf8")), identity, f"the folder {folder}")


def _refuse_another(stored: dict[str, Any], identity: dict[str, Any], what: str) -> None:
    differing = sorted(key for key in {*identity, *stored} if stored.get(key) != identity.get(key))
    if differing:
        raise StorageError(
            f"{what} belongs to another search; it differs in: {', '.join(differing)}. Name another output folder or "
            f"storage, or remove it."
        )


def _training_of(trial: Any) -> Training | None:
    text = trial.user_attrs.get(TRAINING)
    return None if text is None else Training(**json.loads(text))
