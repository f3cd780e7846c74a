"""Heads as folders that transformers loads by itself."""

import json

import numpy as np
import pytest
import spacy
import torch
from pipelines import LISTENER, build, examples
from spacy.util import fix_random_seed
from thinc.api import Adam
from tiny import TEXTS
from transformers import AutoModelForTokenClassification, AutoTokenizer
from typer.testing import CliRunner

from spacy_lsbillm.alignment import align, cut_pieces
from spacy_lsbillm.backbone.classifier import UNMASKS
from spacy_lsbillm.cli import app

LAST_PIECE = {**LISTENER, "pooling": {"@layers": "spacy-lsbillm.last_piece.v1"}}
LABELER = {"@architectures": "spacy-lsbillm.SequenceLabeler.v1", "tok2vec": LISTENER}
TEXTCAT = {
    "@architectures": "spacy-lsbillm.PooledTextCat.v1",
    "exclusive_classes": True,
    "pooling": "last",
    "tok2vec": LAST_PIECE,
}
needs_unmasking = pytest.mark.skipif(not UNMASKS, reason="this transformers keeps the causal mask")


def pipeline(base, heads, steps=3, **model):
    fix_random_seed(0)
    nlp = build(base, (), **model)
    for name, (factory, config) in heads.items():
        nlp.add_pipe(factory, name, config=config)
    data = examples(nlp)
    nlp.initialize(lambda: data)
    optimizer = Adam(0.01)
    for _ in range(steps):
        nlp.update(data, sgd=optimizer)
    return nlp


def labeler(base, **model):
    return pipeline(base, {"tagger": ("sequence_labeler", {"model": LABELER})}, **model)


def saved(nlp, path):
    nlp.to_disk(path)
    return path


def exported(*arguments, code=0):
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def scores_of(folder, text, auto):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), auto.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(**tokenizer(text, return_tensors="pt")).logits[0].numpy()


def by_token(nlp, folder, text):
    """The scores of tokens from those of pieces, by spans of characters."""
    doc = nlp.make_doc(text)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    scores = scores_of(folder, text, AutoModelForTokenClassification)
    get_spans = nlp.get_pipe("transformer").model.attrs["cutting"].get_spans
    of_piece, counts = align([doc], cut_pieces(tokenizer, [doc], get_spans))
    before = len(scores) - (of_piece.max() + 1)
    return np.stack([scores[before + places].mean(0) for places in np.split(of_piece, np.cumsum(counts)[:-1])])


@pytest.fixture(scope="module")
def causal(make_base, tmp_path_factory):
    return saved(labeler(make_base("gpt2"), unmask="none", depth=3), tmp_path_factory.mktemp("causal") / "pipeline")


@pytest.fixture(scope="module")
def unmasked(make_base, tmp_path_factory):
    """Narrow windows, in which transformers would see one piece more on each side."""
    base = make_base("mistral", sliding_window=5)
    return saved(labeler(base, store_base="copy"), tmp_path_factory.mktemp("unmasked") / "pipeline")


def test_a_causal_labeler_gives_the_same_scores(causal, tmp_path):
    told = exported(causal, tmp_path / "out")
    assert "GPT2ForTokenClassification" in told and "4 texts" in told
    nlp = spacy.load(causal)
    for text in TEXTS:
        expected = nlp.get_pipe("tagger").model.predict([nlp(text)])[0]
        assert np.abs(expected).max() > 0.01
        assert np.allclose(by_token(nlp, tmp_path / "out", text), expected, atol=1e-4)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "is_causal" not in config and config["n_layer"] == 3
    assert config["id2label"]["0"] == "O" and config["label2id"]["B-artist"] == 1


@needs_unmasking
def test_an_unmasked_labeler_gives_the_same_scores(unmasked, tmp_path):
    assert "MistralForTokenClassification" in exported(unmasked, tmp_path / "out")
    nlp = spacy.load(unmasked)
    for text in TEXTS:
        expected = nlp.get_pipe("tagger").model.predict([nlp(text)])[0]
        assert np.allclose(by_token(nlp, tmp_path / "out", text), expected, atol=1e-4)


def test_an_unmasked_config_says_so(unmasked, tmp_path):
    told = exported(unmasked, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["is_causal"] is False and config["sliding_window"] == 4
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Needs transformers 5.2" in card and "`U-city`" in card
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (record["checked"] is not None) == UNMASKS
    assert ("Not compared" in told) == (not UNMASKS)
