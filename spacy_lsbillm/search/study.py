"""The results of a search in a database, through Optuna: trials that are shared by several processes, each done once,
and kept when a process is killed."""

import contextlib
import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState

from ..errors import SettingError, StorageError
from .space import Cell

CELL, RECORD, TOKEN, HOST, PROCESS, ALIVE = "cell", "record", "token", "host", "process", "alive"
# Seconds between signs of life of a running trial, and without one until somebody else may have it.
HEARTBEAT, GRACE = 20.0, 120.0
SQLITE = "sqlite:///"
IDENTITY = "search.json"
PROC = Path("/proc")


@dataclass(frozen=True)
class Finished:
    """A finished trial.

    cell (Cell): What was trained.
    score (float): The best on the development set; of a shared training the mean over its masks.
    record (dict): What the trial left beside it; of a shared training with the score `by_mask`.
    """

    cell: Cell
    score: float
    record: dict[str, Any]

    @property
    def by_mask(self) -> dict[str, float]:
        """The score of its mask, or of each of its masks."""
        return dict(self.record.get("by_mask") or {self.cell.mask: self.score})


class Study:
    """The trials of one search.

    url (str): A database, such as sqlite:///search.db.
    identity (dict): What makes it this search and no other, such as the config.
    RAISES (StorageError): The database holds another search, or cannot be used.
    """

    NAME = "search-mask"

    def __init__(self, url: str, identity: dict[str, Any]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # SQLite locks no rows: without a lock of its own two processes could take the same trial.
        self._lock = FileLock(url.removeprefix(SQLITE) + ".lock") if url.startswith(SQLITE) else None
        try:
            with self._alone():
                storage = optuna.storages.RDBStorage(url)
                self._study = optuna.create_study(
                    storage=storage, study_name=self.NAME, direction="maximize", load_if_exists=True
                )
                stored = self._study.user_attrs.get("identity")
                if stored is None:
                    self._study.set_user_attr("identity", identity)
        except Exception as error:
            # SQLAlchemy and the databases' drivers have errors of their own.
            raise StorageError(f"the storage {url!r} cannot be used: {str(error).splitlines()[0]}") from error
        if stored is not None:
            _refuse_another(stored, identity, f"the storage {url!r}")

    def finished(self) -> dict[Cell, Finished]:
        """All finished trials."""
        found = {}
        for trial in self._trials(TrialState.COMPLETE):
            cell, score = _cell_of(trial), trial.value
            if cell is not None and score is not None:
                found[cell] = Finished(cell, score, json.loads(trial.user_attrs[RECORD]))
        return found

    def do_one(self, cells: Sequence[Cell], train: Callable[[Cell], tuple[float, dict[str, Any]]]) -> Cell | None:
        """Do the first of some cells that is neither finished nor under way in another process; what a dead one had
        taken is nobody's.

        train (Callable): Cell to score and record.
        RETURNS (Cell | None): What was done; None where nothing was left.
        RAISES (SettingError): The score is no number.
        """
        trial = self._take(cells)
        if trial is None:
            return None
        cell = Cell(**json.loads(trial.user_attrs[CELL]))
        try:
            with _signs_of_life(trial):
                score, record = train(cell)
            if not math.isfinite(score):
                raise SettingError(
                    f"the training under {cell.mask!r} with seed {cell.seed} has the score {score}, which cannot be "
                    f"compared. Lower the learning rate."
                )
        except BaseException:
            # Another process may have given it up already.
            with contextlib.suppress(ValueError):
                self._study.tell(trial, state=TrialState.FAIL)
            raise
        attributes = {CELL: json.dumps(asdict(cell)), RECORD: json.dumps(record)}
        try:
            trial.set_user_attr(RECORD, attributes[RECORD])
            self._study.tell(trial, score)
        except optuna.exceptions.UpdateFinishedTrialError:
            # Given up by another process, which has not heard of this one for too long: what was trained still counts.
            self._study.add_trial(optuna.trial.create_trial(value=score, user_attrs=attributes))
        return cell

    def _take(self, cells: Sequence[Cell]) -> optuna.Trial | None:
        """Begin a trial of the first cell that nobody has."""
        with self._alone():
            for trial in self._trials(TrialState.RUNNING):
                if _is_dead(trial):
                    self._study.tell(trial.number, state=TrialState.FAIL)
            known = set(map(_cell_of, self._trials(TrialState.RUNNING, TrialState.COMPLETE)))
            free = next((cell for cell in cells if cell not in known), None)
            if free is None:
                return None
            attributes = {
                CELL: json.dumps(asdict(free)),
                TOKEN: uuid.uuid4().hex,
                HOST: _here(),
                PROCESS: _born(os.getpid()),
                ALIVE: time.time(),
            }
            # With its attributes at once, so that there is no moment at which others do not see what it is.
            self._study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs=attributes))
            same = [one for one in self._trials(TrialState.RUNNING, TrialState.COMPLETE) if _cell_of(one) == free]
            mine = next(one for one in same if one.user_attrs.get(TOKEN) == attributes[TOKEN])
            if any(one.number < mine.number for one in same):
                # Another process was faster, which a database that cannot be locked here allows.
                self._study.tell(mine.number, state=TrialState.FAIL)
                return None
            return optuna.Trial(self._study, mine._trial_id)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def _alone(self) -> contextlib.AbstractContextManager[Any]:
        return self._lock if self._lock is not None else contextlib.nullcontext()


def claim_folder(folder: Path, identity: dict[str, Any]) -> None:
    """Say in a folder whose results are in it.

    RAISES (StorageError): Those of another search are.
    """
    path = folder / IDENTITY
    with FileLock(folder / f".{IDENTITY}.lock"):
        if not path.exists():
            partial = path.with_name(f"{IDENTITY}.partial")
            partial.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf8")
            partial.replace(path)
    _refuse_another(json.loads(path.read_text(encoding="utf8")), identity, f"the folder {folder}")


def _refuse_another(stored: dict[str, Any], identity: dict[str, Any], what: str) -> None:
    differing = sorted(key for key in {*identity, *stored} if stored.get(key) != identity.get(key))
    if differing:
        raise StorageError(
            f"{what} belongs to another search; it differs in: {', '.join(differing)}. Name another output folder or "
            f"storage, or remove it."
        )


def _cell_of(trial: Any) -> Cell | None:
    text = trial.user_attrs.get(CELL)
    return None if text is None else Cell(**json.loads(text))


@contextlib.contextmanager
def _signs_of_life(trial: optuna.Trial) -> Iterator[None]:
    done = threading.Event()

    def tell() -> None:
        while not done.wait(HEARTBEAT):
            # A database may be out of reach for a while.
            with contextlib.suppress(Exception):
                trial.set_user_attr(ALIVE, time.time())

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _is_dead(trial: FrozenTrial) -> bool:
    """A process that can be looked for is; any other has not been heard of for a while."""
    attrs = trial.user_attrs
    if attrs.get(HOST) == _here() and PROCESS in attrs and PROC.is_dir():
        return _born(int(str(attrs[PROCESS]).partition(":")[0])) != attrs[PROCESS]
    begun = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    return time.time() - attrs.get(ALIVE, begun) > GRACE


def _here() -> str:
    """This machine; containers on it that do not see each other's processes are others."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _born(process: int) -> str:
    """A process's number and, where the system tells, when it began: numbers are used again."""
    try:
        fields = (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return f"{process}:gone"
    # A zombie waits for its parent to take note; it does nothing any more.
    return f"{process}:gone" if fields[0] == "Z" else f"{process}:{fields[19]}"
