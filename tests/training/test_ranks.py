"""A training with several processes: the same weights and scores as with one, and an end if one of them dies."""

import multiprocessing
import os
import signal
import socket
import time
import traceback
from functools import partial
from pathlib import Path

import pytest
import spacy
import torch
from corpora import make_docs, write_config, write_corpus
from spacy.language import Language
from spacy.tokens import DocBin
from spacy.util import load_config

from spacy_lsbillm.errors import SettingError
from spacy_lsbillm.training import CHECKPOINTS, Interval, Preempted, RankLost, TrainSettings, train
from spacy_lsbillm.training.run import check_alike

pytestmark = [pytest.mark.slow, pytest.mark.any_stack]

# The time in which a process must notice that another one has died.
SECONDS = 60
LOST = 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    # Documents of different lengths, and a number per batch that cannot be divided equally.
    return write_corpus(tmp_path_factory.mktemp("corpus") / "train.spacy", copies=3)


@pytest.fixture(scope="module")
def base(make_base):
    return make_base("llama", num_hidden_layers=2)


def make_config(path: Path, corpus, base, pipeline, steps, **training) -> Path:
    write_config(path, corpus, base, pipeline)
    config = load_config(path, interpolate=False)
    config["training"] |= {"dropout": 0.0, "max_steps": steps, "eval_frequency": 4, **training}
    config["components"]["transformer"]["model"]["lora"]["dropout"] = 0.0
    config.to_disk(path, interpolate=False)
    return path


def in_rank(rank: int, port: int, folder: Path, work) -> None:
    """Call the function in one process."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    said, status = "", 0
    try:
        work(rank)
    except RankLost:
        status = LOST
    except BaseException:
        said, status = traceback.format_exc(), 1
    (folder / f"rank-{rank}.txt").write_text(said)
    os._exit(status)


def in_two(folder: Path, work) -> tuple[list[int | None], list[str]]:
    """Call a function of the rank in two processes.

    RETURNS: Their exit statuses, and what went wrong.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(exist_ok=True)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=in_rank, args=(rank, port, folder, work)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    files = [folder / f"rank-{rank}.txt" for rank in range(2)]
    return [process.exitcode for process in processes], [file.read_text() if file.exists() else "" for file in files]


def train_in_two(config, output, **more):
    work = partial(_train, config, output, more)
    statuses, said = in_two(output.with_name("ranks"), work)
    assert statuses == [0, 0], said


def _train(config, output, more, rank):
    train(TrainSettings(config, output, **more))


def weights(folder):
    nlp = spacy.load(folder)
    for name, pipe in nlp.pipeline:
        for number, node in enumerate(pipe.model.walk()):
            for key in node.param_names:
                if node.has_param(key):
                    yield f"{name}/{number}/{key}", torch.from_numpy(node.get_param(key))
            for shim in node.shims:
                if hasattr(shim, "backbone"):
                    yield from shim.backbone.trainable().items()


def furthest(one, other):
    """The largest difference between the weights of two pipelines."""
    left, right = dict(weights(one)), dict(weights(other))
    assert left.keys() == right.keys() and len(left) > 4
    return max(float((left[key] - right[key]).detach().abs().max()) for key in left)


def scores(folder):
    # The speed of a run does not count.
    found = spacy.util.load_meta(folder / "meta.json")["performance"]
    return {key: value for key, value in found.items() if not key.endswith("_loss") and key != "speed"}


@pytest.mark.parametrize(
    "pipeline, steps, training",
    [
        (("sequence_labeler", "textcat"), 12, {}),
        (("sequence_labeler", "textcat"), 8, {"accumulate_gradient": 2}),
        # After more steps, a near tie between two actions may be decided differently, which the optimizer amplifies.
        (("ner", "textcat"), 5, {}),
    ],
)
def test_two_processes_are_one(base, corpus, tmp_path, pipeline, steps, training):
    config = make_config(tmp_path / "config.cfg", corpus, base, pipeline, steps, **training)
    train(TrainSettings(config, tmp_path / "one"))
    train_in_two(config, tmp_path / "two")
    assert furthest(tmp_path / "one" / "model-last", tmp_path / "two" / "model-last") < 1e-5
    assert scores(tmp_path / "one" / "model-last") == scores(tmp_path / "two" / "model-last")


def test_two_processes_train_a_head_over_a_frozen_base(whole, corpus, base, tmp_path):
    path = make_config(tmp_path / "config.cfg", corpus, base, ("sequence_labeler",), 8)
    frozen = load_config(path, interpolate=False)
    frozen["components"]["transformer"] = {"source": str(whole / "model-last")}
    frozen["training"] |= {"frozen_components": ["transformer"], "annotating_components": ["transformer"]}
    frozen.to_disk(path, interpolate=False)
    train(TrainSettings(path, tmp_path / "one"))
    train_in_two(path, tmp_path / "two")
    assert furthest(tmp_path / "one" / "model-last", tmp_path / "two" / "model-last") < 1e-5


def test_partial_annotation_counts_over_the_whole_batch(base, tmp_path):
    """Most tokens with a loss are in the share of one process."""
    docs = make_docs() * 4
    for number, doc in enumerate(docs):
        if number % 4:
            doc.set_ents([], missing=[doc[1 : len(doc)]])
    DocBin(docs=docs).to_disk(tmp_path / "train.spacy")
    pipeline = ("sequence_labeler", "textcat")
    config = make_config(tmp_path / "config.cfg", tmp_path / "train.spacy", base, pipeline, 8)
    train(TrainSettings(config, tmp_path / "one"))
    train_in_two(config, tmp_path / "two")
    assert furthest(tmp_path / "one" / "model-last", tmp_path / "two" / "model-last") < 1e-5


@pytest.fixture(scope="module")
def config(base, corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.cfg"
    return make_config(path, corpus, base, ("sequence_labeler", "textcat"), 8)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """A run with one process that was not stopped."""
    output = tmp_path_factory.mktemp("whole")
    train(TrainSettings(config, output))
    return output


def _die_after(steps, config, output, rank):
    original = Language.update
    updates = []

    def update(self, *args, **kwargs):
        updates.append(1)
        if rank == 1 and len(updates) > steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args, **kwargs)

    Language.update = update
    train(TrainSettings(config, output, checkpoint_every=Interval(steps=2)))


def test_one_that_dies_ends_the_others_and_the_run_goes_on(config, whole, tmp_path):
    began = time.monotonic()
    statuses, said = in_two(tmp_path / "ranks", partial(_die_after, 5, config, tmp_path / "killed"))
    assert statuses == [LOST, -signal.SIGKILL], said
    assert time.monotonic() - began < SECONDS
    assert list((tmp_path / "killed" / CHECKPOINTS).iterdir())
    train_in_two(config, tmp_path / "killed", resume=True)
    assert furthest(whole / "model-last", tmp_path / "killed" / "model-last") < 1e-5


def test_another_number_of_processes_is_told(config, whole, tmp_path, capsys):
    output = tmp_path / "run"
    train_in_two(config, output, checkpoint_every=Interval(steps=2), overrides={"training.max_steps": 4})
    train(TrainSettings(config, output, resume=True))
    assert "The run had 2 processes and now has 1" in " ".join(capsys.readouterr().out.split())
    assert furthest(whole / "model-last", output / "model-last") < 1e-5


def _asked_to_stop(config, output, rank):
    original = Language.update
    updates = []

    def update(self, *args, **kwargs):
        updates.append(1)
        if rank == 1 and len(updates) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args, **kwargs)

    Language.update = update
    with pytest.raises(Preempted) as stopped:
        train(TrainSettings(config, output, checkpoint_every=Interval(steps=100)))
    assert stopped.value.step == 3 and stopped.value.first == (rank == 0)


def test_one_that_is_asked_to_stop_stops_all_after_a_checkpoint(config, tmp_path):
    statuses, said = in_two(tmp_path / "ranks", partial(_asked_to_stop, config, tmp_path / "run"))
    assert statuses == [0, 0], said
    assert [path.name for path in (tmp_path / "run" / CHECKPOINTS).iterdir()] == ["step-000000003"]


def test_a_checkpoint_of_the_last_step_is_not_written_twice(config, tmp_path):
    """The processes agree that it exists."""
    train_in_two(config, tmp_path / "run", checkpoint_every=Interval(steps=2), overrides={"training.max_steps": 3})
    assert sorted(path.name for path in (tmp_path / "run" / CHECKPOINTS).iterdir())[-1] == "step-000000003"


def test_all_that_differ_are_named_with_what_they_have_in_common():
    identities = [{"a": 1}, {"a": 2}, {"a": 1}, {"a": 2}, {"a": 3}]
    with pytest.raises(SettingError) as error:
        check_alike(identities)
    assert str(error.value).splitlines() == [
        "processes 1, 3 of this training differ from the first one:",
        "  a: 1, now 2",
        "process 4 of this training differs from the first one:",
        "  a: 1, now 3",
        "They must be the same in all processes.",
    ]


def _with_own_corpus(config, folder, rank):
    train(TrainSettings(config, folder / "run", {"paths.train": str(folder / f"{rank}.spacy")}))


def test_other_corpora_are_told_before_anything_is_loaded(config, tmp_path):
    for rank in range(2):
        write_corpus(tmp_path / f"{rank}.spacy", copies=3 + rank)
    statuses, said = in_two(tmp_path / "ranks", partial(_with_own_corpus, config, tmp_path))
    # Printed once, not by each process.
    assert statuses == [1, LOST]
    assert "process 1 of this training differs from the first one" in said[0] and "corpora.train.path" in said[0]


def test_too_few_documents_are_told_once(config, tmp_path):
    work = partial(_train, config, tmp_path / "run", {"overrides": {"training.batcher.size": 5}})
    statuses, said = in_two(tmp_path / "ranks", work)
    assert statuses == [1, LOST]
    assert SettingError.__name__ in said[0] and "too few for 2 processes" in said[0]
