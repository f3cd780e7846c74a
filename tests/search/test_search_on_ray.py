"""A search with trainings on a Ray cluster finds the same as one in a single process."""

import contextlib
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import spacy
from corpora import run, write_config, write_corpus
from spacy.util import load_config

from spacy_lsbillm.errors import SettingError
from spacy_lsbillm.search.experiment import Experiment
from spacy_lsbillm.search.on_ray import RayCluster, node_requirements, train_on_node
from spacy_lsbillm.search.training import Training

pytestmark = pytest.mark.any_stack

pytest.importorskip("ray", reason="Ray is not installed (the extra [ray])")
QUICK = {"training.max_steps": 4, "training.eval_frequency": 2}
WORDS = [
    "--masks",
    "none all",
    "--seeds",
    "0",
    *(part for name, value in QUICK.items() for part in (f"--{name}", value)),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.spacy", copies=1)


@pytest.fixture(scope="module")
def config(make_base, corpus, tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("config") / "c.cfg", corpus, make_base(), ["sequence_labeler"])


@pytest.fixture(scope="module")
def address():
    """The address of a cluster of one node with one core."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()


def found(folder):
    """The results of a search without times."""
    results = json.loads((folder / "results.json").read_text())
    rows = {row["way"]: (row["steps"], row["scores"], row["curves"]) for row in results["rows"]}
    return rows, {row["way"]: row["scores"] for row in results["test"]}, results["chosen"], results["spending"]


def kill_first(over):
    """Kill the first training process of a node, which Ray names after its task.

    RETURNS (bool): Whether there was one.
    """
    while not over.wait(0.05):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if path.read_bytes().startswith(b"ray::train_on_node"):
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    return True
    return False


@pytest.fixture(scope="module")
def searched(config, corpus, address, tmp_path_factory):
    """The folders of a search on the cluster, of which a process is killed, and of one in this process.

    It also returns whether there was a process to kill.
    """
    folder, over = tmp_path_factory.mktemp("searched"), threading.Event()
    options = [*WORDS, "--test", corpus]
    with ThreadPoolExecutor(1) as threads:
        killed = threads.submit(kill_first, over)
        try:
            # Two at once, for which the cluster has no room: one of them waits.
            run("lsbillm", "search", config, folder / "there", *options, "--ray", address, "--workers", "2")
        finally:
            over.set()
    run("lsbillm", "search", config, folder / "here", *options)
    return folder / "there", folder / "here", killed.result()


def test_a_cluster_finds_what_one_process_finds_though_a_training_is_killed(searched):
    there, here, killed = searched
    assert killed
    assert found(there) == found(here)


def test_models_come_back_whole(searched):
    for mask in ("none", "all"):
        nlp = spacy.load(searched[0] / "models" / mask / "0-4" / "model-best")
        assert nlp.config["components"]["transformer"]["model"]["unmask"] == mask
    assert not list((searched[0] / "models").glob("*/*.partial"))


def test_a_node_with_other_files_is_refused(config, tmp_path):
    corpus = write_corpus(tmp_path / "corpus.spacy", copies=1)
    experiment = Experiment.of(load_config(config, overrides=QUICK | {"paths.train": str(corpus)}, interpolate=False))
    expected = node_requirements(experiment)
    write_corpus(corpus, copies=2)
    with pytest.raises(
        SettingError, match=r"differs from the machine of the command in: paths.corpora.train, paths.train"
    ):
        train_on_node(
            experiment.config,
            experiment.component,
            Training("all", 0, 4),
            expected,
            gpu=False,
            folder=str(tmp_path / "none"),
        )


def test_nothing_is_begun_once_a_search_is_over(config, address, tmp_path):
    experiment = Experiment.of(load_config(config, overrides=QUICK, interpolate=False))
    with RayCluster(address, None, gpu=False) as cluster:
        assert cluster.at_once == 1
        remote = cluster.trainer_for(experiment, tmp_path)
        remote.stop()
        with pytest.raises(SettingError, match="the search is over"):
            remote.train(Training("all", 0, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ray", "127.0.0.1:1"], "no Ray cluster runs at 127.0.0.1:1"),
        (["--ray", "--workers", "0"], "--workers 0 is not allowed"),
        (["--workers", "2"], "it goes with --ray"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_done(config, tmp_path, options, message):
    said = run("lsbillm", "search", config, tmp_path / "out", *WORDS, *options, code=1)
    assert message in " ".join(said.split())
    assert not (tmp_path / "out").exists()
