"""The files of a base that a running pipeline uses: written to, truncated, replaced, deleted."""

import os
import shutil

import numpy as np
import pytest
from pipelines import build, examples, train, vectors
from safetensors.torch import load_file, save_file
from tiny import TEXTS

from spacy_lsbillm.errors import BaseError

FILE = "model.safetensors"


@pytest.fixture
def running(make_base, tmp_path):
    """The folder of a base, and a pipeline that uses it."""
    folder = shutil.copytree(make_base(), tmp_path / "base")
    nlp = build(folder, heads=())
    nlp.initialize()
    vectors(nlp)
    return folder, nlp


def other_weights(folder, target):
    save_file({name: value + 1 for name, value in load_file(folder / FILE).items()}, target, {"format": "pt"})
    return target


def written(folder):
    content = other_weights(folder, folder.parent / "other").read_bytes()
    with (folder / FILE).open("r+b") as file:
        file.write(content)


def copied_over(folder):
    # Like `cp`, which empties the file first.
    shutil.copyfile(other_weights(folder, folder.parent / "other"), folder / FILE)


def cut_off(folder):
    os.truncate(folder / FILE, 100)


def replaced(folder):
    other_weights(folder, folder.parent / "other").replace(folder / FILE)


def deleted(folder):
    shutil.rmtree(folder)


@pytest.mark.parametrize("how", [written, copied_over, cut_off])
def test_a_file_that_is_written_to_is_noticed(running, how):
    folder, nlp = running
    how(folder)
    with pytest.raises(BaseError, match=rf"{FILE} was written to after it was loaded.*Load the pipeline again.*renam"):
        vectors(nlp)


@pytest.mark.parametrize("how", [replaced, deleted])
def test_a_file_that_is_replaced_or_deleted_does_no_harm(running, how):
    folder, nlp = running
    before = vectors(nlp)
    how(folder)
    assert all(np.array_equal(one, other) for one, other in zip(before, vectors(nlp), strict=True))


def test_what_is_loaded_again_is_the_file_as_it_is_now(running):
    """Even if the samples by which bases are told apart are the same."""
    folder, nlp = running
    content = bytearray((folder / FILE).read_bytes())
    with (folder / FILE).open("r+b") as file:
        file.write(content)
    os.utime(folder / FILE)
    with pytest.raises(BaseError, match="was written to"):
        vectors(nlp)
    again = build(folder, heads=())
    again.initialize()
    assert len(vectors(again)) == len(TEXTS)


def test_it_is_noticed_in_training_and_in_copies(make_base, tmp_path):
    folder = shutil.copytree(make_base(), tmp_path / "base")
    nlp = build(folder, heads=("ner",))
    train(nlp, 1)
    copy = build(folder, heads=())
    copy.initialize()
    written(folder)
    with pytest.raises(BaseError, match="was written to"):
        nlp.update(examples(nlp))
    with pytest.raises(BaseError, match="was written to"):
        vectors(copy)


def test_weights_that_are_not_mapped_are_their_own(make_base, tmp_path):
    folder = shutil.copytree(make_base(), tmp_path / "base")
    nlp = build(folder, heads=(), dtype="bfloat16")
    nlp.initialize()
    before = vectors(nlp)
    written(folder)
    assert all(np.array_equal(one, other) for one, other in zip(before, vectors(nlp), strict=True))
