"""Heads as folders that transformers loads without this package."""

import json

import numpy as np
import pytest
import spacy
import torch
from pipelines import LISTENER, NER, build, examples
from spacy.util import fix_random_seed
from thinc.api import Adam
from tiny import FAMILIES, SHAPE
from tiny import TEXTS as REQUESTS
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer
from typer.testing import CliRunner

from spacy_lsbillm.alignment import align, cut_pieces
from spacy_lsbillm.backbone.classifier import TEXTS, TOKENS, UNMASKS, classifier_config, find_classifier
from spacy_lsbillm.backbone.classifier_proof import check_classifier
from spacy_lsbillm.backbone.proved import family_of
from spacy_lsbillm.cli import app
from spacy_lsbillm.errors import BaseError
from spacy_lsbillm.layers import ClassCalibration, set_calibration

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
    """Narrow windows, in which transformers would see one more piece on each side."""
    base = make_base("mistral", sliding_window=5)
    return saved(labeler(base, store_base="copy"), tmp_path_factory.mktemp("unmasked") / "pipeline")


def test_a_causal_labeler_gives_the_same_scores(causal, tmp_path):
    told = exported(causal, tmp_path / "out")
    assert "GPT2ForTokenClassification" in told and "4 texts" in told
    nlp = spacy.load(causal)
    for text in REQUESTS:
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
    for text in REQUESTS:
        expected = nlp.get_pipe("tagger").model.predict([nlp(text)])[0]
        assert np.allclose(by_token(nlp, tmp_path / "out", text), expected, atol=1e-4)


def test_an_unmasked_config_says_so(unmasked, tmp_path):
    told = exported(unmasked, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["is_causal"] is False and config["sliding_window"] == 4
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Needs transformers 5.2" in card and "`city`" in card and "`U-`" in card
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (record["checked"] is not None) == UNMASKS
    assert ("Not compared" in told) == (not UNMASKS)


def text_head(base, **model):
    head = {"textcat": ("textcat", {"model": TEXTCAT})}
    return pipeline(base, head, unmask="none", output="pieces", **model)


def test_a_head_for_texts_with_its_bias_in_the_last_norm(make_base, tmp_path):
    """GPT-2's last norm is a LayerNorm, whose bias can include that of the head, which transformers' class lacks."""
    nlp = text_head(make_base("gpt2"))
    bias = nlp.get_pipe("textcat").model.get_ref("output_layer").get_param("b")
    bias += np.array([2.0, -1.0, 0.5], dtype="f")
    told = exported(saved(nlp, tmp_path / "pipeline"), tmp_path / "out")
    assert "GPT2ForSequenceClassification, 3 labels" in told
    for text in REQUESTS:
        scores = scores_of(tmp_path / "out", text, AutoModelForSequenceClassification)
        expected = list(nlp(text).cats.values())
        assert np.allclose(np.exp(scores) / np.exp(scores).sum(), expected, atol=1e-4)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["problem_type"] == "single_label_classification"


def test_a_calibrated_head_for_texts_is_exported_without_its_calibration(make_base, tmp_path):
    nlp = text_head(make_base("gpt2"))
    before = list(nlp(REQUESTS[0]).cats.values())
    set_calibration(nlp.get_pipe("textcat").model, ClassCalibration(temperature=0.1))
    path = saved(nlp, tmp_path / "pipeline")
    assert not np.allclose(list(spacy.load(path)(REQUESTS[0]).cats.values()), before, atol=1e-3)
    exported(path, tmp_path / "out")
    scores = scores_of(tmp_path / "out", REQUESTS[0], AutoModelForSequenceClassification)
    assert np.allclose(np.exp(scores) / np.exp(scores).sum(), before, atol=1e-4)
    assert "without its calibration" in (tmp_path / "out" / "README.md").read_text()


def test_a_head_for_texts_without_room_for_its_bias(make_base, tmp_path):
    nlp = text_head(make_base("llama"))
    path = saved(nlp, tmp_path / "pipeline")
    told = exported(path, tmp_path / "out", code=1)
    assert "the norms of 'llama' have none" in told
    assert not (tmp_path / "out").exists()
    nlp.get_pipe("textcat").model.get_ref("output_layer").get_param("b")[:] = 3.0
    exported(saved(nlp, path), tmp_path / "out")


def test_a_frozen_quantised_and_merged_base(make_base, tmp_path):
    for number, model in enumerate(({"lora": None}, {"quantization": "nf4"}, {"store_base": "merged"})):
        nlp = labeler(make_base("llama"), unmask="none", steps=1, **model)
        exported(saved(nlp, tmp_path / f"pipeline{number}"), tmp_path / f"out{number}")


def test_one_of_several_heads(make_base, tmp_path):
    heads = {
        "tagger": ("sequence_labeler", {"model": LABELER}),
        "spans": ("ner", {"model": NER}),
        "texts": ("textcat", {"model": {**TEXTCAT, "pooling": "mean"}}),
    }
    path = saved(pipeline(make_base("llama"), heads, steps=1, unmask="none", output="pieces"), tmp_path / "pipeline")
    told = exported(path, tmp_path / "out", code=1)
    assert "several heads" in told and "--component; these can be exported: tagger, texts" in told
    assert "one linear layer" in exported(path, tmp_path / "out", "--component", "spans", code=1)
    assert "no such component" in exported(path, tmp_path / "out", "--component", "other", code=1)
    assert "pooling = 'mean'" in exported(path, tmp_path / "out", "--component", "texts", code=1)
    assert not (tmp_path / "out").exists()
    exported(path, tmp_path / "out", "--component", "tagger")


@pytest.mark.parametrize(
    "said, model",
    [
        ("unmask = '0011'", {"unmask": "0011"}),
        ("repeat = 1", {"repeat": 1}),
        ("scalar_mix = 'all'", {"scalar_mix": "all"}),
        (
            "get_spans = 'spacy-transformers.sent_spans.v1'",
            {"get_spans": {"@span_getters": "spacy-transformers.sent_spans.v1"}},
        ),
    ],
)
def test_what_a_config_cannot_say_is_refused(said, model, make_base, tmp_path):
    nlp = build(make_base("llama"), (), **model)
    nlp.add_pipe("sequence_labeler", config={"model": LABELER})
    data = examples(nlp)
    nlp.initialize(lambda: data)
    told = exported(saved(nlp, tmp_path / "pipeline"), tmp_path / "out", code=1)
    assert said in told and "cannot be exported" in told
    assert list(tmp_path.iterdir()) == [tmp_path / "pipeline"]


def test_other_pieces_than_the_tokenizer_gives_are_refused(make_base, tmp_path):
    nlp = labeler(make_base("llama"), steps=1, unmask="none", add_bos_token=False)
    assert "add_bos_token" in exported(saved(nlp, tmp_path / "pipeline"), tmp_path / "out", code=1)
    assert not (tmp_path / "out").exists()


def test_another_folder_is_not_replaced(causal, make_base, tmp_path):
    base = make_base("gpt2")
    before = sorted(path.name for path in base.iterdir())
    assert "holds no 'export.json'" in exported(causal, base, code=1)
    assert sorted(path.name for path in base.iterdir()) == before
    exported(causal, tmp_path / "out")
    exported(causal, tmp_path / "out")


def test_a_pipeline_without_heads(make_base, tmp_path):
    nlp = build(make_base("llama"), ())
    nlp.initialize()
    assert "no head to export" in exported(saved(nlp, tmp_path / "pipeline"), tmp_path / "out", code=1)


@needs_unmasking
def test_a_class_that_would_keep_the_mask_is_refused(unmasked, tmp_path, monkeypatch):
    """For example that of a family whose code ignores is_causal."""
    monkeypatch.setattr("spacy_lsbillm.backbone.classifier.classifier_config", no_flag)
    monkeypatch.setattr("spacy_lsbillm.backbone.classifier_proof.classifier_config", no_flag)
    told = exported(unmasked, tmp_path / "out", code=1)
    assert "does not compute the same for" in told
    assert not (tmp_path / "out").exists()


def no_flag(config, architecture, labels, both_ways, pad, problem=None):
    return classifier_config(config, architecture, labels, False, pad, problem)


@pytest.mark.parametrize(
    "family, task, said",
    [
        ("granite", TOKENS, "has no class …ForTokenClassification for 'granite'"),
        ("modernbert-decoder", TEXTS, "is not one linear layer over the states"),
    ],
)
def test_families_without_a_place_for_the_head(family, task, said):
    if family not in FAMILIES:
        pytest.skip("this transformers does not know the family")
    config = AutoConfig.for_model(family, **{**SHAPE, **FAMILIES[family]}, vocab_size=320)
    with pytest.raises(BaseError, match=said):
        find_classifier(config, task, "base")


@needs_unmasking
@pytest.mark.parametrize("family", ["gemma2", "gpt_neox"])
def test_windows_caps_and_other_names_of_the_head(family):
    config = AutoConfig.for_model(family, **{**SHAPE, **FAMILIES[family]}, vocab_size=320)
    assert (
        check_classifier(config, find_classifier(config, TOKENS, "base"), family_of(config, "base"), True, "base") == 0
    )
