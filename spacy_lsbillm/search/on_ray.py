"""Trainings of a search on a Ray cluster. Each is a task, which Ray runs where there is room."""

import io
import os
import shutil
import tarfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import spacy
from thinc.api import Config

from ..cluster import connected, last_line, room_of
from ..errors import SettingError
from ..files import TemporaryFolder, new_folder
from .experiment import Experiment
from .run import RemoteTrainer
from .trainer import model_folder, trainer
from .training import Training

# How often a training is started again after its process or node was lost.
RETRIES = 3
LIBRARIES = ("spacy-lsbillm", "spacy", "spacy-transformers", "thinc", "torch", "transformers", "peft")


@dataclass(frozen=True)
class _NodeResult:
    """What a node sends back after a training.

    score (float), record (dict): See `trainer.trainer`.
    model (bytes | None): A tar archive of the model's folder; None if no model is kept.
    """

    score: float
    record: dict[str, Any]
    model: bytes | None


def node_requirements(experiment: Experiment) -> dict[str, Any]:
    """What must be the same on a node as where the command runs.

    That is the config, the content of base and corpora, and the versions of the libraries.
    """
    return {**experiment.identity, **{f"version of {name}": version(name) for name in LIBRARIES}}


def train_on_node(
    config: Config, component: str, training: Training, expected: Mapping[str, Any], gpu: bool, folder: str
) -> _NodeResult:
    """Run one training on a node of the cluster.

    config (Config), component (str): The config and the component of the `Experiment`.
    expected (Mapping): The `node_requirements` of the experiment where the command runs.
    gpu (bool): Whether to compute on a GPU.
    folder (str): The folder in which the command was started, to resolve relative names; ignored if the node has no
        such folder.
    RAISES (SettingError): The node has another base, other corpora or other versions.
    """
    if os.path.isdir(folder):
        os.chdir(folder)
    if gpu:
        # Ray makes only its own GPU visible to a task.
        spacy.require_gpu(0)
    experiment = Experiment.of(config, component)
    present = node_requirements(experiment)
    differing = sorted(name for name in {*expected, *present} if expected.get(name) != present.get(name))
    if differing:
        raise SettingError(
            f"the node {os.uname().nodename} differs from the machine of the command in: {', '.join(differing)}. It "
            f"needs the base and the corpora under the same paths, and the same versions of the libraries."
        )
    with TemporaryFolder() as place:
        score, record = trainer(experiment, place, 0 if gpu else -1)(training)
        return _NodeResult(score, record, _pack(model_folder(place, training)))


def _pack(folder: Path) -> bytes | None:
    if not folder.is_dir():
        return None
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.add(folder, arcname=".")
    return content.getvalue()


def _unpack(content: bytes, folder: Path) -> None:
    """Unpack a model's folder. Either all of it appears, or nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    with new_folder(folder) as partial, tarfile.open(fileobj=io.BytesIO(content)) as tar:
        partial.mkdir()
        tar.extractall(partial, filter="data")


class RayCluster:
    """A Ray cluster that runs trainings, each on one core, or on one GPU and one core.

    Leaving the context ends the trainings that are running.

    address (str): HOST:PORT, ray://HOST:PORT, or "auto" for the cluster of which this machine is a part.
    workers (int | None): The number of parallel trainings; trainings without room wait, which makes a cluster grow if
        it can. None: as many as the cluster has room for now.
    gpu (bool): Whether to compute on GPUs.
    RAISES (SettingError): Ray is not installed, no cluster runs at the address, or it has no room.
    """

    def __init__(self, address: str, workers: int | None, gpu: bool) -> None:
        self._ray = connected(address)
        self._gpu = gpu
        self._lock = threading.Lock()
        self._calls: set[Any] = set()
        self._stopped = False
        self.at_once = workers or room_of(self._ray, gpu)
        if not self.at_once:
            self._ray.shutdown()
            raise SettingError(
                f"the Ray cluster at {address} has no {'GPU' if gpu else 'core'} to train on. Start a node, or "
                f"set --workers: then trainings wait for one."
            )
        # A training that fails would fail on any node: its error is reported, and it is not started again.
        options: dict[str, Any] = {"num_cpus": 1, "max_retries": RETRIES, "retry_exceptions": False}
        self._remote = self._ray.remote(**options, **({"num_gpus": 1} if gpu else {}))(train_on_node)

    def trainer_for(self, experiment: Experiment, folder: Path) -> RemoteTrainer:
        """Create the trainer of a search on the cluster.

        folder (Path): The folder on this machine in which the models of trainings in full are kept.
        """
        expected = node_requirements(experiment)

        def train(training: Training) -> tuple[float, dict[str, Any]]:
            result = self._train(experiment, training, expected)
            if result.model is not None:
                _unpack(result.model, model_folder(folder, training))
            return result.score, result.record

        return RemoteTrainer(train, self.at_once, self.stop)

    def _train(self, experiment: Experiment, training: Training, expected: Mapping[str, Any]) -> _NodeResult:
        settings = f" ({training.settings})" if training.settings else ""
        which = f"the training under {training.mask!r}{settings} with seed {training.seed}"
        with self._lock:
            if self._stopped:
                raise SettingError(f"{which} was not started: the search is over.")
            call = self._remote.remote(
                experiment.config, experiment.component, training, expected, self._gpu, os.getcwd()
            )
            self._calls.add(call)
        try:
            result: _NodeResult = self._ray.get(call)
        except self._ray.exceptions.TaskCancelledError as error:
            raise SettingError(f"{which} was stopped because the search is over.") from error
        except self._ray.exceptions.RayTaskError as error:
            raise SettingError(f"{which} failed on a node of the cluster: {last_line(error)}") from error
        except self._ray.exceptions.RayError as error:
            raise SettingError(
                f"{which} was started {RETRIES + 1} times on the cluster, and each time its process or node was lost "
                f"({type(error).__name__}). Run the same command again to resume the search."
            ) from error
        finally:
            with self._lock:
                self._calls.discard(call)
        return result

    def stop(self) -> None:
        """End all trainings that are running."""
        with self._lock:
            self._stopped = True
            calls = list(self._calls)
        for call in calls:
            self._ray.cancel(call, force=True)

    def __enter__(self) -> "RayCluster":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._ray.shutdown()
