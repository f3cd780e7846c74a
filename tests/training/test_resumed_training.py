"""`lsbillm train`: spaCy's training, and resuming it as if it had not been stopped."""

import inspect
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import spacy
from corpora import write_config, write_corpus
from spacy.cli._util import app
from spacy.training import loop as spacy_loop
from spacy.util import load_config
from typer.testing import CliRunner

import spacy_lsbillm.cli  # noqa: F401
from spacy_lsbillm.errors import SettingError, StorageError
from spacy_lsbillm.training import CHECKPOINTS, Interval, TrainSettings, train

pytestmark = pytest.mark.any_stack


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "train.spacy", copies=3)


@pytest.fixture(scope="module")
def base(make_base):
    return make_base("llama", num_hidden_layers=2)


@pytest.fixture(scope="module")
def config(base, corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.cfg"
    return write_config(path, corpus, base, size=50)


def run(config, output, *more, every=None, resume=False):
    options = [] if every is None else ["--checkpoint-every", str(every)]
    options += ["--resume"] if resume else []
    result = CliRunner().invoke(
        app, ["lsbillm", "train", str(config), "--output", str(output), *options, *map(str, more)]
    )
    if result.exit_code not in (0, 1, 75):
        raise result.exception
    return result


def said(result):
    """The printed output, in one line."""
    return " ".join(result.output.split())


def rows(text):
    """The rows of the training's table."""
    return [line.split() for line in text.splitlines() if line[:10].split()[:1] and line.split()[0].isdigit()]


def files(folder):
    """The content of a pipeline's files by name, without its card, which contains the training time."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path != folder / "README.md"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def same(one, other, folders=("model-best", "model-last")):
    for name in folders:
        left, right = files(one / name), files(other / name)
        assert left.keys() == right.keys()
        assert [key for key in left if left[key] != right[key]] == []


class Stop(BaseException):
    """Stands in for a kill: neither spaCy nor this package catches it."""


def stopped_at(monkeypatch, step, config, output, **more):
    """Train until an update that never comes."""
    original = spacy.language.Language.update
    updates = []

    def update(self, *args, **kwargs):
        updates.append(1)
        if len(updates) > step:
            raise Stop
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(spacy.language.Language, "update", update)
        with pytest.raises(Stop):
            train(TrainSettings(Path(config), output, **more))


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The run that was not stopped, by spaCy's own command."""
    output = tmp_path_factory.mktemp("whole")
    result = CliRunner().invoke(app, ["train", str(config), "--output", str(output)])
    assert result.exit_code == 0, result.output
    return output, rows(result.output)


def test_files_do_not_depend_on_the_process(whole):
    """Python orders sets of names differently in each process."""
    config = json.loads((whole[0] / "model-last" / "transformer" / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"]) and len(config["target_modules"]) > 3


def test_without_options_it_is_spacys_training(whole, config, tmp_path):
    result = run(config, tmp_path / "out")
    assert rows(result.output) == whole[1] and len(whole[1]) > 2
    same(whole[0], tmp_path / "out")
    assert not (tmp_path / "out" / CHECKPOINTS).exists()


def test_checkpoints_change_nothing_and_the_last_two_are_kept(whole, config, tmp_path):
    result = run(config, tmp_path / "out", every=4)
    assert rows(result.output) == whole[1]
    same(whole[0], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / CHECKPOINTS).iterdir()) == [
        "step-000000019",
        "step-000000020",
    ]


@pytest.mark.parametrize("step", [5, 8, 13, 20])
def test_a_resumed_run_is_the_one_that_was_never_stopped(whole, config, tmp_path, monkeypatch, step):
    output = tmp_path / "out"
    stopped_at(monkeypatch, step, config, output, checkpoint_every=Interval(steps=4))
    result = run(config, output, resume=True)
    assert result.exit_code == 0, result.output
    assert rows(result.output) == whole[1]
    same(whole[0], output)


def variant_config(path, corpus, base, kind):
    """Configs whose trainings keep more state from step to step than weights and moments."""
    pipeline = ("sequence_labeler", "textcat") if kind in ("heads", "8 bit, masks") else ("ner", "textcat")
    model = {"unmask": "all", "unmask_warmup": 12} if kind == "heads" else {}
    write_config(path, corpus, base, pipeline, size=50, **model)
    config = load_config(path, interpolate=False)
    training = config["training"]
    training["max_steps"] = 16
    if kind == "averages, annotating":
        training["optimizer"]["use_averages"] = True
        training["annotating_components"] = ["ner"]
        training["max_epochs"] = 5
        training["max_steps"] = 0
    elif kind == "8 bit, masks":
        config["components"]["transformer"]["model"]["adapter_optimizer"] = "adamw_8bit"
        training["optimizer"]["use_averages"] = False
        training["before_update"] = {"@callbacks": "spacy-lsbillm.random_masks.v1", "masks": ["none", "all", "01"]}
    elif kind == "streamed":
        training["max_epochs"] = -1
        config["corpora"]["train"]["augmenter"] = {"@augmenters": "spacy.lower_case.v1", "level": 0.5}
        training["accumulate_gradient"] = 2
    config.to_disk(path, interpolate=False)
    return path


@pytest.mark.parametrize("kind", ["heads", "averages, annotating", "8 bit, masks", "streamed"])
def test_whatever_a_training_keeps_is_kept(base, corpus, tmp_path, monkeypatch, kind):
    path = variant_config(tmp_path / "config.cfg", corpus, base, kind)
    whole, output = tmp_path / "whole", tmp_path / "out"
    expected = run(path, whole)
    assert expected.exit_code == 0, expected.output
    stopped_at(monkeypatch, 27 if kind == "streamed" else 9, path, output, checkpoint_every=Interval(steps=4))
    result = run(path, output, resume=True)
    assert result.exit_code == 0, result.output
    assert rows(result.output) == rows(expected.output)
    same(whole, output)


CNN = """
[paths]
train = null
dev = null
[nlp]
lang = "xx"
pipeline = ["tok2vec", "tagger", "textcat", "sequence_labeler"]
[components]
[components.tok2vec]
factory = "tok2vec"
[components.tok2vec.model]
@architectures = "spacy.HashEmbedCNN.v2"
pretrained_vectors = null
width = 16
depth = 1
embed_size = 50
window_size = 1
maxout_pieces = 2
subword_features = true
[components.tagger]
factory = "tagger"
[components.tagger.model]
@architectures = "spacy.Tagger.v2"
[components.tagger.model.tok2vec]
@architectures = "spacy.Tok2VecListener.v1"
width = 16
[components.textcat]
factory = "textcat"
[components.sequence_labeler]
factory = "sequence_labeler"
transitions = "learned"
[components.sequence_labeler.model]
@architectures = "spacy-lsbillm.SequenceLabeler.v1"
[components.sequence_labeler.model.tok2vec]
@architectures = "spacy.Tok2VecListener.v1"
width = 16
[corpora]
[corpora.train]
@readers = "spacy.Corpus.v1"
path = ${paths.train}
[corpora.dev]
@readers = "spacy.Corpus.v1"
path = ${paths.dev}
[training]
max_steps = 20
eval_frequency = 5
dropout = 0.3
"""


@pytest.mark.slow
def test_a_pipeline_without_a_transformer_is_resumed_too(corpus, tmp_path, monkeypatch):
    path, whole, output = tmp_path / "config.cfg", tmp_path / "whole", tmp_path / "out"
    config = spacy.util.Config().from_str(CNN, interpolate=False)
    config["paths"] = {"train": str(corpus), "dev": str(corpus)}
    nlp = spacy.util.load_model_from_config(config, auto_fill=True)
    nlp.config.to_disk(path)
    expected = run(path, whole)
    assert expected.exit_code == 0, expected.output
    stopped_at(monkeypatch, 13, path, output, checkpoint_every=Interval(steps=4))
    assert rows(run(path, output, resume=True).output) == rows(expected.output)
    same(whole, output)


def test_max_steps_and_eval_frequency_may_change(whole, config, tmp_path):
    output = tmp_path / "out"
    run(config, output, "--training.max_steps", 10, every=5)
    result = run(config, output, "--training.max_steps", 20, "--training.eval_frequency", 4, resume=True)
    assert result.exit_code == 0, result.output
    assert [row[1] for row in rows(result.output)] == ["0", "10", "12", "16", "20"]
    assert rows(result.output)[:2] == whole[1][:2]
    names = ["model-last/transformer", "model-last/ner", "model-last/textcat", "model-last/vocab"]
    same(whole[0], output, names)


def test_what_differs_is_named_and_needs_force(config, corpus, tmp_path):
    output = tmp_path / "out"
    run(config, output, "--training.max_steps", 5, every=5)
    changed = ("--training.dropout", "0.2")
    result = run(config, output, *changed, resume=True)
    assert result.exit_code == 1
    assert "training.dropout: 0.1, now 0.2" in said(result) and "--force" in said(result)
    result = run(config, output, *changed, "--force", resume=True)
    assert result.exit_code == 0 and "training.dropout" in said(result)


def test_a_corpus_counts_by_its_content(config, corpus, tmp_path):
    output, moved = tmp_path / "out", tmp_path / "moved.spacy"
    shutil.copy(corpus, moved)
    run(config, output, "--training.max_steps", 5, every=5)
    result = run(config, output, "--paths.train", moved, resume=True)
    assert result.exit_code == 0, result.output
    write_corpus(moved, copies=7)
    result = run(config, output, "--paths.train", moved, resume=True)
    assert result.exit_code == 1 and "corpora.train.path" in said(result)


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_taken(whole, config, tmp_path, monkeypatch):
    output = tmp_path / "out"
    stopped_at(monkeypatch, 9, config, output, checkpoint_every=Interval(steps=4))
    first, last = sorted((output / CHECKPOINTS).iterdir())
    tensors = last / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    result = run(config, output, resume=True)
    assert result.exit_code == 0, result.output
    assert "is altered since the checkpoint was written" in said(result) and first.name in said(result)
    same(whole[0], output)


def test_a_checkpoint_that_cannot_be_written_is_told_and_the_run_goes_on(whole, config, tmp_path, monkeypatch):
    from spacy_lsbillm.training import checkpoint

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    result = run(config, tmp_path / "out", every=10)
    assert result.exit_code == 0 and "No space left on device" in said(result)
    assert list((tmp_path / "out" / CHECKPOINTS).iterdir()) == []
    same(whole[0], tmp_path / "out")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--resume"], "there is no checkpoint"),
        (["--checkpoint-every", "0"], "give a number of steps such as 200"),
        (["--checkpoint-every", "soon"], "give a number of steps such as 200"),
        (["--force"], "--force is only allowed with --resume"),
    ],
)
def test_bad_options_are_refused_before_anything_is_loaded(config, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr("spacy.cli.train.init_nlp", lambda *args, **kwargs: pytest.fail("a pipeline was made"))
    result = run(config, tmp_path / "out", *options)
    assert result.exit_code == 1 and message in said(result)


def test_a_run_in_the_place_of_another_is_refused(config, tmp_path, monkeypatch):
    run(config, tmp_path, "--training.max_steps", 5, every=5)
    with pytest.raises(StorageError, match=r"has checkpoints of a run\. Continue it with --resume"):
        train(TrainSettings(config, tmp_path))
    with pytest.raises(StorageError, match=r"training\.max_steps = 3, but the last checkpoint is of step 5"):
        train(TrainSettings(config, tmp_path, {"training.max_steps": 3}, resume=True))
    with pytest.raises(SettingError, match="name one with --output"):
        train(TrainSettings(config, checkpoint_every=Interval(steps=3)))


def run_apart(text, *arguments):
    """Train as a process of its own, which writes what it says into a file."""
    with text.open("w", encoding="utf8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    app(["lsbillm", "train", *arguments])


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_and_a_status_of_its_own(config, tmp_path, fork_server):
    """All three runs are processes of their own.

    Otherwise what else has run in a process, such as the number of threads, would change the last digits of sums. The
    two that are not stopped are forked from a server that has only imported modules.
    """
    context = multiprocessing.get_context("forkserver")

    def forked(output, *more):
        given = (tmp_path / f"{output}{len(more)}.txt", str(config), "--output", str(tmp_path / output), *more)
        process = context.Process(target=run_apart, args=given)
        process.start()
        return process, given[0]

    def end(process, text):
        process.join()
        assert process.exitcode == 0, text.read_text(encoding="utf8")
        return rows(text.read_text(encoding="utf8"))

    stopped, whole = tmp_path / "stopped", forked("whole")
    command = [sys.executable, "-m", "spacy", "lsbillm", "train", str(config), "--output", str(stopped)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen([*command, "--checkpoint-every", "1"], env=environment, **streams)
    while not list((stopped / CHECKPOINTS).glob("step-*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate()
    assert process.returncode == 75, text
    assert "--resume" in text
    assert end(*forked("stopped", "--resume")) == end(*whole)
    same(tmp_path / "whole", stopped)


def test_what_is_stood_in_for_is_still_there():
    """The loop is spaCy's own: a release that changes how it uses its arguments would be noticed here."""
    parameters = inspect.signature(spacy_loop.train_while_improving).parameters
    assert list(parameters) == [
        "nlp",
        "optimizer",
        "train_data",
        "evaluate",
        "dropout",
        "eval_frequency",
        "accumulate_gradient",
        "patience",
        "max_steps",
        "exclude",
        "annotating_components",
        "before_update",
    ]
    source = inspect.getsource(spacy_loop.train_while_improving)
    used = {word.split("(")[0].split(".")[1] for word in source.split() if word.startswith("nlp.")}
    assert used == {"update", "pipeline:", "use_params"}
    assert "step % eval_frequency" in source and source.count("eval_frequency") == 2
    source = inspect.getsource(spacy_loop.train)
    for name in ("create_train_batches", "train_while_improving", "create_before_to_disk_callback", "clean_output_dir"):
        assert f"{name}(" in source
