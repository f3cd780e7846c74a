"""Faults found by the reliability campaign: interrupts, and a full disk in libraries with exceptions of their own."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import optuna
import pytest
import torch
from backbones import load
from optuna.exceptions import StorageInternalError
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from spacy_lsbillm.backbone import LoraSettings
from spacy_lsbillm.errors import AdapterError, BaseError
from spacy_lsbillm.files import as_os_error, sole_writer
from spacy_lsbillm.pretraining.tokens import write_tokens
from spacy_lsbillm.search.study import Study
from spacy_lsbillm.search.training import Training

FULL = "/dev/full"


@pytest.mark.skipif(not os.path.exists(FULL), reason="this system has no /dev/full, which stands for a full disk")
def test_a_full_disk_is_one_whichever_library_writes():
    with pytest.raises(OSError) as caught, as_os_error():
        Tokenizer(models.WordLevel({"a": 0})).save(FULL)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.skipif(not os.path.exists(FULL), reason="this system has no /dev/full, which stands for a full disk")
def test_tokens_that_do_not_fit_the_disk_are_told(make_base, tmp_path):
    (tmp_path / "training.tokens.partial").symlink_to(FULL)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(make_base("llama"), eos_token="</s>")
    with pytest.raises(OSError, match="No space left"):
        write_tokens(iter(["book a table"]), tokenizer, tmp_path / "training.tokens", "training")
    assert not (tmp_path / "training.tokens").exists()


def test_other_errors_stay_what_they_are():
    with pytest.raises(ValueError, match="of its own"), as_os_error():
        raise ValueError("of its own")


@pytest.mark.parametrize("training", [True, False])
def test_an_interrupt_while_dropout_is_switched_leaves_no_dropout_in_predictions(make_base, monkeypatch, training):
    backbone = load(make_base("llama"), lora=LoraSettings(dropout=0.5))
    layers = [module for module in backbone.model.modules() if isinstance(module, torch.nn.Dropout)]
    assert layers
    backbone.set_training(not training)
    before = torch.nn.Dropout.train
    calls = []

    def interrupted(self, mode=True):
        calls.append(mode)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return before(self, mode)

    monkeypatch.setattr(torch.nn.Dropout, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backbone.set_training(training)
    assert any(layer.training for layer in layers)
    backbone.set_training(False)
    assert not any(module.training for module in backbone.model.modules())


def test_a_trial_whose_end_could_not_be_written_is_free_in_the_same_process(tmp_path, monkeypatch):
    """On a full disk, the storage still lists the trial as running, in a process that is alive."""
    study = Study(f"sqlite:///{tmp_path / 'search.db'}", {})
    training = Training("none", 0, 1)

    def cannot_be_told(*_, **__):
        raise StorageInternalError

    def fail(*_):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as full:
        full.setattr(optuna.Study, "tell", cannot_be_told)
        with pytest.raises(OSError, match="full"):
            study.run_next([training], fail)
    assert study.run_next([training], lambda _: (0.5, {})) == training
    assert study.results()[training].score == 0.5


def test_a_config_with_more_layers_than_any_model(make_base, tmp_path):
    base = shutil.copytree(make_base("llama"), tmp_path / "base")
    path = base / "config.json"
    path.write_text(path.read_text().replace('"num_hidden_layers": 4', '"num_hidden_layers": 2147483648'))
    with pytest.raises(BaseError, match=r"num_hidden_layers = 2147483648; at most 10000 are allowed"):
        load(base)


@pytest.mark.parametrize("block", [[], 0, "", True, np.float32(1)])
def test_an_adapter_of_another_kind_than_a_block(block):
    with pytest.raises(AdapterError, match="it must be a block of settings, or null"):
        LoraSettings.read(block)


def test_the_lock_of_a_killed_process_goes_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import os, tempfile, pathlib; tempfile.tempdir = {0!r}\n"
        "from spacy_lsbillm.files import sole_writer\n"
        "with sole_writer(pathlib.Path({0!r}) / 'one'):\n"
        "    os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code.format(str(tmp_path))], check=True)
    left = set(tmp_path.glob("*.lock"))
    assert len(left) == 2
    with sole_writer(tmp_path / "two"), sole_writer(tmp_path / "three"):
        # Locks that are in use stay.
        assert len(set(tmp_path.glob("*.lock")) - left) == 2
    assert len(list(tmp_path.glob("*.lock"))) == 1
