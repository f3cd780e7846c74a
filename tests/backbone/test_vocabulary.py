"""Tokenizers with pieces for which the base's embedding has no row."""

import json
import shutil
import warnings

import numpy as np
import pytest
import spacy
from backbones import CPU
from pipelines import build, vectors
from spacy.tokens import DocBin
from tiny import make_model
from transformers import AddedToken, AutoTokenizer
from typer.testing import CliRunner

from spacy_lsbillm.backbone import BaseSettings
from spacy_lsbillm.cli import app
from spacy_lsbillm.errors import BaseError
from spacy_lsbillm.language_model.readings import base_reading

TEXTS = ["flu season", "covid season", "the covid <image> season", "a <image>"]


def with_added(folder, target, words=("covid",), special=("<image>",), **named):
    """A copy of a base with pieces added to its tokenizer but not to its embedding."""
    shutil.copytree(folder, target)
    tokenizer = AutoTokenizer.from_pretrained(target)
    tokenizer.add_tokens(list(words))
    tokenizer.add_tokens([AddedToken(piece, special=True) for piece in special])
    tokenizer.add_special_tokens(named)
    tokenizer.save_pretrained(target)
    return target


def initialized(folder, **model):
    nlp = build(folder, heads=(), **model)
    nlp.initialize()
    return nlp


@pytest.mark.parametrize("store_base", ["reference", "copy"])
def test_added_words_are_cut_as_before_they_were_added(make_base, tmp_path, store_base):
    expected = vectors(initialized(make_base("llama")), TEXTS)
    folder = with_added(make_base("llama"), tmp_path / "base")
    with pytest.warns(
        UserWarning,
        match=r"1 added words without a row in the base.s embedding .*'covid'\. .*resize_token_embeddings",
    ):
        nlp = initialized(folder, store_base=store_base)
    found = vectors(nlp, TEXTS)
    nlp.to_disk(tmp_path / "saved")
    with warnings.catch_warnings():
        # The saved tokenizer fits the base, and is loaded without a warning.
        warnings.simplefilter("error", UserWarning)
        loaded = spacy.load(tmp_path / "saved")
    for again in (found, vectors(loaded, TEXTS)):
        assert all(np.allclose(one, other, atol=1e-6) for one, other in zip(again, expected, strict=True))


def test_special_pieces_of_other_modalities_are_left_out_without_a_word(make_base, tmp_path):
    folder = with_added(make_base("llama"), tmp_path / "base", words=())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        nlp = initialized(folder)
    assert all(np.isfinite(rows).all() for rows in vectors(nlp, TEXTS))


def test_a_named_piece_that_has_no_embedding_is_not_used(make_base, tmp_path):
    folder = with_added(make_base("llama", start=False), tmp_path / "base", words=(), bos_token="<begin>")
    with pytest.raises(ValueError, match="add_bos_token = true is not allowed"):
        initialized(folder, add_bos_token=True)("a text")


def test_a_start_piece_that_has_no_embedding(make_base, tmp_path):
    """The tokenizer's settings are missing, or belong to another base."""
    folder = with_added(make_base("llama"), tmp_path / "base", words=(), special=("<begin>",))
    said = json.loads((folder / "tokenizer.json").read_text())
    number = next(token["id"] for token in said["added_tokens"] if token["content"] == "<begin>")
    said["post_processor"]["single"][0]["SpecialToken"]["id"] = "<begin>"
    said["post_processor"]["special_tokens"] = {"<begin>": {"id": "<begin>", "ids": [number], "tokens": ["<begin>"]}}
    (folder / "tokenizer.json").write_text(json.dumps(said))
    with pytest.raises(BaseError, match=rf"puts '<begin>' around each text, with id {number}, .* tokenizer_config"):
        initialized(folder)


def test_a_tokenizer_without_its_settings(make_base, tmp_path):
    """transformers then takes the default pieces of the type, which this base does not have."""
    folder = shutil.copytree(make_base("llama"), tmp_path / "base")
    for path in (folder / "tokenizer_config.json", folder / "special_tokens_map.json"):
        path.unlink(missing_ok=True)
    said = (folder / "tokenizer.json").read_text().replace('"<s>"', '"<start>"').replace('"</s>"', '"<end>"')
    (folder / "tokenizer.json").write_text(said)
    try:
        nlp = initialized(folder)
    except BaseError as error:
        assert "around each text" in str(error)
    else:
        assert all(np.isfinite(rows).all() for rows in vectors(nlp, TEXTS))


def test_the_tokenizer_of_another_base(make_base, tmp_path):
    folder = shutil.copytree(make_base("llama"), tmp_path / "base")
    make_model("llama", 0, 200).save_pretrained(folder)
    with pytest.raises(BaseError, match=r"120 pieces without a row in the base.s embedding .*200 rows.*another base"):
        initialized(folder)
    assert CliRunner().invoke(app, ["check-base", str(folder)]).exit_code == 1


@pytest.mark.parametrize("name", ["tokenizer.json", "*token*"])
def test_a_folder_without_a_tokenizer(make_base, tmp_path, name):
    folder = shutil.copytree(make_base("llama"), tmp_path / "base")
    for path in folder.glob(name):
        path.unlink()
    with pytest.raises(BaseError, match=r"holds no tokenizer, .*tokenizer\.json.*save_pretrained"):
        initialized(folder)


def test_the_commands_name_and_count_them(make_base, tmp_path):
    folder = with_added(make_base("llama"), tmp_path / "base")
    result = CliRunner().invoke(app, ["check-base", str(folder)])
    assert result.exit_code == 0
    assert "without 'covid', '<image>'" in " ".join(result.output.split())
    nlp = spacy.blank("en")
    DocBin(docs=[nlp.make_doc(text) for text in TEXTS]).to_disk(tmp_path / "docs.spacy")
    arguments = [str(folder), str(tmp_path / "docs.spacy"), "--json", str(tmp_path / "found.json")]
    result = CliRunner().invoke(app, ["debug-pieces", *arguments])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "found.json").read_text())["corpora"][str(tmp_path / "docs.spacy")]
    assert found["without_embedding"] == {"count": 4, "examples": ["covid", "<image>"]}
    assert "without an embedding" in result.output


def test_a_base_alone(make_base, tmp_path):
    folder = with_added(make_base("llama"), tmp_path / "base")
    with pytest.warns(UserWarning, match="covid"):
        reading = base_reading(BaseSettings(str(folder)), CPU)
    assert max(reading.tokenizer(TEXTS[1])["input_ids"]) < reading.model.config.vocab_size
