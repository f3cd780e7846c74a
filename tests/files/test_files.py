"""Files and folders that are replaced as a whole, and seals."""

import contextlib
import gc
import os
import random
import signal
import time

import numpy as np
import pytest
import spacy
from pipelines import backbone, build, examples, same, train, trained, vectors
from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from spacy.training.loop import train as training_loop
from spacy.util import fix_random_seed

import spacy_lsbillm
from spacy_lsbillm.errors import StorageError
from spacy_lsbillm.files import TemporaryFolder, new_folder, replaced_file, replaced_folder, sole_writer, write_text
from spacy_lsbillm.saving import pipelines, rewrite

pytestmark = pytest.mark.any_stack


def read(folder):
    return {path.name: path.read_text(encoding="utf8") for path in folder.iterdir()}


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "pipeline"
    for content in ("one", "two"):
        with replaced_folder(target, "cfg") as folder:
            assert list(folder.iterdir()) == []
            (folder / "cfg").write_text(content, encoding="utf8")
            (folder / content).write_text(content, encoding="utf8")
        assert read(target) == {"cfg": content, content: content}
    assert os.listdir(tmp_path) == ["pipeline"]


def test_after_an_error_the_old_folder_is_there(tmp_path):
    target = tmp_path / "pipeline"
    with replaced_folder(target, "cfg") as folder:
        (folder / "cfg").write_text("one", encoding="utf8")
    with pytest.raises(RuntimeError), replaced_folder(target, "cfg") as folder:
        (folder / "cfg").write_text("two", encoding="utf8")
        raise RuntimeError
    assert read(target) == {"cfg": "one"}
    assert os.listdir(tmp_path) == ["pipeline"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf8")
    with pytest.raises(StorageError, match="holds no 'cfg'"), replaced_folder(tmp_path, "cfg"):
        pass
    with pytest.raises(StorageError, match="holds no 'cfg'"), replaced_folder(tmp_path / "notes.txt", "cfg"):
        pass
    assert read(tmp_path) == {"notes.txt": "mine"}


def test_one_writer_at_a_time(tmp_path):
    with (
        replaced_folder(tmp_path / "pipeline", "cfg") as folder,
        pytest.raises(StorageError, match="another process"),
        replaced_folder(tmp_path / "pipeline", "cfg"),
    ):
        pass
    assert not folder.exists()


def test_a_file_system_without_exchange_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.platform", "other")
    for content in ("one", "two"):
        if content == "one":
            with replaced_folder(tmp_path / "pipeline", "cfg") as folder:
                (folder / "cfg").write_text(content, encoding="utf8")
        else:
            with (
                pytest.warns(UserWarning, match="cannot exchange"),
                replaced_folder(tmp_path / "pipeline", "cfg") as folder,
            ):
                (folder / "cfg").write_text(content, encoding="utf8")
    assert read(tmp_path / "pipeline") == {"cfg": "two"}
    assert os.listdir(tmp_path) == ["pipeline"]


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_a_kill_between_renames_is_mended_by_the_next_write(tmp_path, monkeypatch, moment):
    """If folders cannot be exchanged, a kill may leave the old one under another name."""
    monkeypatch.setattr("sys.platform", "other")
    monkeypatch.setattr("warnings.warn", lambda *a, **k: None)
    pipeline, partial, aside = (tmp_path / name for name in ("pipeline", ".pipeline.partial", ".pipeline.partial.old"))
    left = {"before": (pipeline, partial), "between": (aside, partial), "after": (pipeline, aside)}[moment]
    for folder in left:
        folder.mkdir()
        (folder / "cfg").write_text("old", encoding="utf8")
    with pytest.raises(ZeroDivisionError), replaced_folder(pipeline, "cfg"):
        raise ZeroDivisionError
    assert read(pipeline) == {"cfg": "old"}
    with replaced_folder(pipeline, "cfg") as folder:
        (folder / "cfg").write_text("new", encoding="utf8")
    assert read(pipeline) == {"cfg": "new"}
    assert os.listdir(tmp_path) == ["pipeline"]


def test_after_an_error_a_file_is_as_it_was(tmp_path):
    write_text(tmp_path / "new" / "notes.txt", "one")
    with pytest.raises(OSError, match="full"), replaced_file(tmp_path / "new" / "notes.txt") as partial:
        partial.write_text("half of t", encoding="utf8")
        raise OSError("the disk is full")
    assert read(tmp_path / "new") == {"notes.txt": "one"}


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path):
    for content in ("left by a killed process", "whole"):
        with contextlib.suppress(KeyboardInterrupt), new_folder(tmp_path / "base") as partial:
            assert not partial.exists()
            partial.mkdir()
            (partial / "cfg").write_text(content, encoding="utf8")
            if content != "whole":
                raise KeyboardInterrupt
        assert (tmp_path / "base").exists() == (content == "whole")
    assert read(tmp_path / "base") == {"cfg": "whole"}
    assert os.listdir(tmp_path) == ["base"]


def test_files_of_others_stay_in_a_saved_pipeline(make_base, tmp_path):
    nlp = trained(make_base())
    spacy_lsbillm.save(nlp, tmp_path / "pipeline")
    (tmp_path / "pipeline" / "NOTES.md").write_text("mine", encoding="utf8")
    nlp.remove_pipe("textcat")
    spacy_lsbillm.save(nlp, str(tmp_path / "pipeline"))
    assert (tmp_path / "pipeline" / "NOTES.md").read_text(encoding="utf8") == "mine"
    nlp.to_disk(tmp_path / "other")
    rewrite(tmp_path / "other", tmp_path / "pipeline")
    assert (tmp_path / "pipeline" / "NOTES.md").read_text(encoding="utf8") == "mine"
    assert not (tmp_path / "pipeline" / "textcat").exists()
    assert spacy.load(tmp_path / "pipeline").pipe_names == ["transformer", "ner"]


def set_weights(nlp, value):
    """Set all weights of a pipeline to one value, so that a mixture of two states would be noticed."""
    for parameter in backbone(nlp).trainable().values():
        parameter.data.fill_(value)
    for head in ("ner", "textcat"):
        for node in nlp.get_pipe(head).model.walk():
            for name in node.param_names:
                if node.has_param(name):
                    node.set_param(name, np.full_like(node.get_param(name), value))


def marks(nlp):
    found = {float(value) for p in backbone(nlp).trainable().values() for value in p.detach().unique()}
    for head in ("ner", "textcat"):
        for node in nlp.get_pipe(head).model.walk():
            for name in node.param_names:
                if node.has_param(name):
                    found |= set(np.unique(node.get_param(name)).tolist())
    return found


@pytest.mark.slow
def test_a_save_that_is_killed_leaves_a_whole_pipeline(make_base, tmp_path):
    nlp = trained(make_base())
    set_weights(nlp, 0.0)
    begun = time.monotonic()
    spacy_lsbillm.save(nlp, tmp_path / "pipeline")
    duration = time.monotonic() - begun
    rng = random.Random(0)
    seen = set()
    for kill in range(20):
        child = os.fork()
        if child == 0:
            # Save different weights each time, until the kill.
            for turn in range(1000):
                set_weights(nlp, kill + turn / 1024)
                spacy_lsbillm.save(nlp, tmp_path / "pipeline")
            os._exit(1)
        time.sleep(rng.uniform(0, 3 * duration))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        found = marks(spacy.load(tmp_path / "pipeline"))
        assert len(found) == 1, "a mixture of two pipelines"
        seen |= found
    # Some saves finished, however slow the machine is.
    assert len(seen) > 1
    # The next save removes what the last kill left behind.
    spacy_lsbillm.save(nlp, tmp_path / "pipeline")
    assert os.listdir(tmp_path) == ["pipeline"]


@pytest.mark.parametrize("store_base", ["reference", "copy", "merged"])
def test_every_changed_byte_of_the_component_is_refused(make_base, tmp_path, store_base):
    nlp = trained(make_base(), store_base=store_base)
    component = tmp_path / "pipeline" / "transformer"
    nlp.to_disk(tmp_path / "pipeline")
    files = sorted(path for path in component.rglob("*") if path.is_file())
    fresh = nlp.get_pipe("transformer")
    rng = random.Random(store_base)
    for number in range(100):
        # Each file in turn, because a few files contain most of the bytes.
        path = files[number % len(files)]
        content = path.read_bytes()
        if not content:
            continue
        place = rng.randrange(len(content))
        changed = bytearray(content)
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(content[:place] if number % 3 == 0 else bytes(changed))
        with pytest.raises(StorageError, match=path.name):
            fresh.from_disk(component, exclude=["vocab"])
        path.write_bytes(content)
    fresh.from_disk(component, exclude=["vocab"])


def test_training_can_write_whole_pipelines(make_base, tmp_path):
    fix_random_seed(0)
    nlp = build(make_base())
    docs = DocBin(docs=[example.reference for example in examples(nlp)], store_user_data=True)
    docs.to_disk(tmp_path / "data.spacy")
    config = nlp.config.copy()
    for name in ("train", "dev"):
        config["corpora"][name] = {"@readers": "spacy.Corpus.v1", "path": str(tmp_path / "data.spacy")}
    config["training"] |= {
        "max_steps": 2,
        "eval_frequency": 1,
        "before_to_disk": {"@callbacks": "spacy-lsbillm.save_whole.v1"},
    }
    saved = []
    original = pipelines.replaced_folder

    def watched(path, known_by):
        saved.append(path.name)
        return original(path, known_by)

    with pytest.MonkeyPatch.context() as patch, (tmp_path / "log").open("w") as log:
        patch.setattr("spacy_lsbillm.saving.pipelines.replaced_folder", watched)
        training_loop(init_nlp(config), tmp_path / "training", stdout=log, stderr=log)
    assert set(saved) == {"model-last"}
    assert [len(v) for v in vectors(spacy.load(tmp_path / "training" / "model-best"))]


def test_a_component_alone_is_replaced_as_a_whole(make_base, tmp_path):
    nlp = build(make_base())
    train(nlp)
    component = nlp.get_pipe("transformer")
    component.to_disk(tmp_path / "transformer")
    component.to_disk(tmp_path / "transformer")
    assert os.listdir(tmp_path) == ["transformer"]
    with pytest.raises(StorageError, match="Name another folder"):
        component.to_disk(tmp_path)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def in_fork(job):
    """Run a job in another process.

    RETURNS (int): Its exit status.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            job()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def test_locks_of_many_folders_leave_no_files(tmp_path, temporary):
    for number in range(5):
        with replaced_folder(tmp_path / str(number), "cfg") as folder:
            (folder / "cfg").write_text("", encoding="utf8")
    with pytest.raises(ZeroDivisionError), sole_writer(tmp_path / "other"):
        raise ZeroDivisionError
    # At most one file for all folders, not one per folder.
    assert len(os.listdir(temporary)) <= 1


def test_no_two_processes_write_a_folder_at_once(tmp_path, temporary):
    """The lock file is removed with the lock, so a process that has opened it before must not count as a writer."""
    inside = tmp_path / "inside"

    def write():
        entered = 0
        while entered < 20:
            try:
                with sole_writer(tmp_path / "pipeline"):
                    inside.mkdir()
                    time.sleep(0.0005)
                    inside.rmdir()
                entered += 1
            except StorageError:
                pass

    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                write()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert len(os.listdir(temporary)) <= 1


def test_temporary_folders_of_killed_processes_go_with_the_next_one(temporary):
    mine = TemporaryFolder()

    def killed():
        kept = TemporaryFolder()
        (kept.path / "file").write_text("much", encoding="utf8")
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_fork(killed) == signal.SIGKILL
    assert len(list(temporary.iterdir())) == 2
    with TemporaryFolder() as other:
        assert set(temporary.iterdir()) == {mine.path, other}
    assert list(temporary.iterdir()) == [mine.path]
    # A forked process has a copy of the object, but the folder belongs to its parent.
    assert in_fork(mine.__exit__) == 0
    assert list(temporary.iterdir()) == [mine.path]
    del mine
    assert not list(temporary.iterdir())


def test_messages_of_pipelines_leave_nothing(make_base, temporary):
    nlp = trained(make_base())

    def killed():
        fresh = build(make_base())
        fresh.from_bytes(nlp.to_bytes())
        os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(2):
        assert in_fork(killed) == signal.SIGKILL
    assert len(list(temporary.glob("*/"))) == 1
    copied = build(make_base()).from_bytes(nlp.to_bytes())
    assert same(vectors(copied), vectors(nlp))
    del copied
    gc.collect()
    nlp.to_bytes()
    assert not list(temporary.glob("*/"))
