"""Pipelines and configs that were saved by an earlier version load, and predict the same."""

import json

import numpy as np
import pytest
import spacy
from places import SAVED
from saved import outputs
from spacy.schemas import ConfigSchemaTraining
from spacy.util import load_config, load_model_from_config, registry
from tiny import TEXTS

EXPECTED = json.loads((SAVED / "expected.json").read_text(encoding="utf8"))


@pytest.fixture
def base_found(tmp_path, monkeypatch):
    """The path of the base to which `reference` refers."""
    bases = tmp_path / "bases.json"
    bases.write_text(json.dumps({"tiny-llama": str(SAVED / "copy" / "transformer" / "base")}), encoding="utf8")
    monkeypatch.setenv("SPACY_LSBILLM_BASES", str(bases))


def numbers_and_rest(value):
    """All numbers in a tree, in order, and the tree with None in their places."""
    if isinstance(value, float):
        return [value], None
    if isinstance(value, dict):
        found = {key: numbers_and_rest(inner) for key, inner in value.items()}
        return [n for numbers, _ in found.values() for n in numbers], {key: rest for key, (_, rest) in found.items()}
    if isinstance(value, list):
        found = [numbers_and_rest(inner) for inner in value]
        return [n for numbers, _ in found for n in numbers], [rest for _, rest in found]
    return [], value


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_pipeline_of_an_earlier_version_gives_what_it_gave(base_found, name):
    found, place = numbers_and_rest(outputs(spacy.load(SAVED / name), TEXTS))
    expected, expected_place = numbers_and_rest(EXPECTED[name])
    assert place == expected_place and any(place[0][kind] for kind in ("ents", "spans"))
    # The expected values have five decimals and were computed on another processor.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_config_of_an_earlier_version_needs_no_change(name):
    """All of it, including the sections for training only, and without filling in new settings."""
    config = load_config(SAVED / name / "config.cfg")
    nlp = load_model_from_config(config, auto_fill=False, validate=True)
    assert nlp.pipe_names == config["nlp"]["pipeline"]
    training = registry.resolve(config.interpolate()["training"], schema=ConfigSchemaTraining)
    assert training["max_steps"] == config["training"]["max_steps"]
