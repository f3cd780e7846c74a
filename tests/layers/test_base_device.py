"""A base on a device of its own, with spaCy on the CPU.

Only the CPU is always available, so its arrays and tensors stand in for those of two devices.
"""

import numpy as np
import pytest
import spacy
import torch
from pipelines import backbone, build, same, train, vectors
from spacy.util import fix_random_seed
from thinc.api import Adam

from spacy_lsbillm.errors import SettingError
from spacy_lsbillm.layers import base_device, shim, state_pooling
from spacy_lsbillm.layers import optimizer_step as step


def trained(base, steps=1, optimizer=None, **model):
    fix_random_seed(0)
    nlp = build(base, ("textcat",), **model)
    train(nlp, steps, optimizer)
    return nlp


@pytest.fixture(scope="module")
def plain(make_base, tmp_path_factory):
    """Three steps without the setting, the place where the pipeline is stored, and its predictions."""
    nlp = trained(make_base(), 3)
    path = tmp_path_factory.mktemp("plain") / "pipeline"
    nlp.to_disk(path)
    return nlp, path, vectors(nlp)


def test_a_base_on_the_cpu_by_name_is_as_without_a_name(plain, make_base, tmp_path):
    named = trained(make_base(), 3, device="cpu")
    # Equal up to the effect of folding: shared bases have no adapter folded in.
    assert same(plain[2], vectors(named))
    named.to_disk(tmp_path / "pipeline")
    loaded = spacy.load(tmp_path / "pipeline")
    assert loaded.config["components"]["transformer"]["model"]["device"] == "cpu"
    assert same(vectors(loaded), vectors(named))


@pytest.mark.parametrize("value", ["gpu", "cuda:1", ""])
def test_other_names_are_refused_with_those_that_there_are(value, make_base):
    with pytest.raises(SettingError, match=r"device = .* is not allowed. Use one of: 'cuda', 'mps', 'cpu'; or null"):
        build(make_base(), (), device=value)


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_here_is_named_with_those_that_are(name, plain, make_base, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    nlp = build(make_base(), (), device=name)
    with pytest.raises(SettingError, match=f"device = '{name}' is not available: torch .* sees 'cpu'"):
        nlp.initialize()
    with pytest.raises(SettingError, match="is not available"):
        spacy.load(plain[1], config={"components": {"transformer": {"model": {"device": name}}}})


def test_a_gpu_has_its_number(monkeypatch):
    """Otherwise the same device would have two names, and a base would be loaded twice."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert base_device.device_for("cuda") == torch.device("cuda", 1)


@pytest.fixture
def elsewhere(monkeypatch):
    """Make the CPU stand in for another device: whatever crosses is copied and counted."""
    crossed = []

    def to_thinc(tensor, name):
        assert name == "mps"
        crossed.append("to spaCy")
        return tensor.detach().clone().numpy()

    def to_base(array, like):
        assert isinstance(array, np.ndarray)
        crossed.append("to the base")
        return torch.from_numpy(array.copy())

    monkeypatch.setattr(shim, "device_for", lambda name: torch.device("cpu"))
    monkeypatch.setattr(state_pooling, "WITHOUT_BAGS", ("cpu",))
    monkeypatch.setattr(step, "to_thinc", to_thinc)
    monkeypatch.setattr(step, "to_base", to_base)
    monkeypatch.setattr("spacy_lsbillm.layers.billm_model.to_thinc", to_thinc)
    return crossed


def test_training_and_prediction_are_the_same_with_copies(plain, make_base, elsewhere):
    nlp = trained(make_base(), 3, device="mps")
    # To spaCy: the vectors of each batch, the row of the adapter and that of its gradient. Back: the row.
    assert (elsewhere.count("to spaCy"), elsewhere.count("to the base")) == (3 * 3, 3)
    elsewhere.clear()
    assert same(plain[2], vectors(nlp), 1e-5)
    # Once per batch, whatever it contains.
    assert elsewhere == ["to spaCy"]


def test_pieces_a_mix_and_averages_with_copies(make_base, elsewhere):
    optimizer = Adam(0.01, use_averages=True)
    nlp = trained(make_base(), 2, optimizer, device="mps", output="pieces", scalar_mix="all")
    last = vectors(nlp)
    with nlp.use_params(optimizer.averages):
        assert not same(last, vectors(nlp))
    assert same(last, vectors(nlp))


def test_a_base_stays_where_it_was_put(make_base):
    nlp = build(make_base(), (), device="cpu")
    nlp.initialize()
    nlp.get_pipe("transformer").model.shims[0].to_device("gpu", 0)
    assert backbone(nlp).device == torch.device("cpu")


def test_pipelines_on_one_device_share_a_base_and_others_do_not(plain, make_base, monkeypatch):
    """The meta device, which has no values, stands in for another device."""
    pipelines = {device: build(make_base(), (), device=device) for device in ("cpu", "mps")}
    pipelines["cpu"].initialize()
    monkeypatch.setattr(shim, "device_for", lambda name: torch.device("meta"))
    pipelines["mps"].initialize()
    shared = {name: backbone(nlp).shared for name, nlp in pipelines.items()}
    assert shared["cpu"] is backbone(plain[0]).shared
    assert shared["mps"] is not shared["cpu"]
    assert backbone(pipelines["mps"]).device == torch.device("meta")


def test_rehearsal_does_not_lose_what_it_changes():
    """It changes arrays in place, which would be copies if they were from another device."""
    parameter = torch.nn.Parameter(torch.ones(2, device="meta"))
    parameter.grad = torch.ones(2, device="meta")
    with pytest.raises(SettingError, match=r"nlp\.rehearse"):
        step.step_all(lambda key, weights, gradient: None, (0, "adapter"), {"a": parameter}, 1.0, "mps")
