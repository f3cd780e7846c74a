"""The values that null and "auto" stood for in training are stored, because later versions may have other defaults."""

import gc
import json
import shutil
from dataclasses import replace

import pytest
import spacy
from pipelines import backbone, build, same, trained, vectors
from tiny import TEXTS

from spacy_lsbillm.backbone import loading
from spacy_lsbillm.files import write_seal
from spacy_lsbillm.layers import billm_model

pytestmark = pytest.mark.any_stack

LONG = [" ".join(TEXTS * 6)]


@pytest.fixture(scope="module")
def stored(make_base, tmp_path_factory):
    """A trained pipeline with null and "auto" as settings, with its base beside it, and its vectors of a long text."""
    root = tmp_path_factory.mktemp("fitted")
    base = shutil.copytree(make_base(), root / "base")
    edit(base / "config.json", lambda said: said.update(dtype="float32", torch_dtype="float32"))
    nlp = trained(base, dtype="auto")
    nlp.to_disk(root / "pipeline")
    return root, vectors(nlp, LONG)


def edit(path, change):
    said = json.loads(path.read_text(encoding="utf8"))
    change(said)
    path.write_text(json.dumps(said), encoding="utf8")


@pytest.fixture
def later(monkeypatch):
    """Another version of this package."""
    monkeypatch.setattr(billm_model, "default_window", lambda longest, width: 24)
    monkeypatch.setattr(billm_model, "default_overlap", lambda window: 6)
    family_of = loading.family_of

    def other(*arguments):
        family = family_of(*arguments)
        return replace(family, attentions=family.attentions[::-1])

    monkeypatch.setattr(loading, "family_of", other)


@pytest.mark.parametrize("way", ["disk", "saved again", "bytes"])
def test_a_pipeline_computes_what_it_did_when_defaults_change(stored, later, tmp_path, way):
    root, expected = stored
    assert not same(vectors(trained(root / "base", dtype="auto"), LONG), expected)
    nlp = spacy.load(root / "pipeline")
    if way == "saved again":
        nlp.to_disk(tmp_path / "again")
        nlp = spacy.load(tmp_path / "again")
    elif way == "bytes":
        nlp = build(root / "base", dtype="auto").from_bytes(nlp.to_bytes())
    assert same(vectors(nlp, LONG), expected)
    assert backbone(nlp).config._attn_implementation == "sdpa"


def test_what_the_settings_say_holds_and_the_rest_is_as_in_training(stored, later):
    root, expected = stored

    def load(**model):
        return vectors(spacy.load(root / "pipeline", config={"components": {"transformer": {"model": model}}}), LONG)

    assert same(load(window=64, overlap=0), expected)
    assert not same(load(window=24, overlap=0), expected)
    assert not same(load(add_bos_token=False), expected)


def test_a_replaced_listener_computes_what_it_did(stored, tmp_path, monkeypatch):
    root, _ = stored
    nlp = spacy.load(root / "pipeline")
    nlp.replace_listeners("transformer", "textcat", ["model.tok2vec"])
    expected = nlp(LONG[0]).cats
    nlp.to_disk(tmp_path / "own")
    monkeypatch.setattr(billm_model, "default_window", lambda longest, width: 24)
    assert spacy.load(tmp_path / "own")(LONG[0]).cats == pytest.approx(expected, abs=1e-6)


def test_a_tokenizer_that_adds_other_special_pieces_by_itself(stored, tmp_path):
    """As another version of transformers may do."""
    root, expected = stored
    shutil.copytree(root / "pipeline", tmp_path / "p")
    folder = tmp_path / "p" / "transformer"
    edit(folder / "tokenizer" / "tokenizer.json", lambda said: said.update(post_processor=None))
    write_seal(folder)
    assert same(vectors(spacy.load(tmp_path / "p"), LONG), expected)


def test_the_dtype_of_a_base_is_that_of_training(stored):
    root, expected = stored
    said = (root / "base" / "config.json").read_text(encoding="utf8")
    gc.collect()
    try:
        edit(root / "base" / "config.json", lambda said: said.update(dtype="bfloat16", torch_dtype="bfloat16"))
        nlp = spacy.load(root / "pipeline")
        assert same(vectors(nlp, LONG), expected)
        # If it is requested now, it is the dtype of the files.
        shutil.rmtree(root / "float32", ignore_errors=True)
        trained(root / "base").to_disk(root / "float32")
        now = spacy.load(root / "float32", config={"components": {"transformer": {"model": {"dtype": "auto"}}}})
        assert str(backbone(now).causal_lm.dtype) == "torch.bfloat16"
    finally:
        (root / "base" / "config.json").write_text(said, encoding="utf8")


def test_a_pipeline_of_an_older_version_loads(stored, tmp_path):
    root, expected = stored
    shutil.copytree(root / "pipeline", tmp_path / "p")
    folder = tmp_path / "p" / "transformer"
    edit(folder / "billm.json", lambda record: record.pop("fitted"))
    write_seal(folder)
    nlp = spacy.load(tmp_path / "p")
    assert same(vectors(nlp, LONG), expected)
    nlp.to_disk(tmp_path / "again")
    record = json.loads((tmp_path / "again" / "transformer" / "billm.json").read_text(encoding="utf8"))
    assert record["fitted"]["cutting"]["window"] == 64
