"""The base in assets/: a normal Hugging Face folder with trained weights."""

import json
import math

import pytest
import torch
from places import REPOSITORY
from transformers import AutoModelForCausalLM, AutoTokenizer

from spacy_lsbillm.pretraining.objectives import see_both_ways

FOLDER = REPOSITORY / "assets" / "base"
ENCODER = FOLDER.with_name("base_mlm")
TEXT = (
    "The river rises in the mountains in the north of the country, and flows to the south until it reaches the sea. "
    "In the nineteenth century, it was the most important route for trade between the coast and the towns of the "
    "interior, and several of its harbours were built at that time."
)


@torch.inference_mode()
def bits_per_byte(model, tokenizer):
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    nats = model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    return nats / math.log(2) / len(TEXT.encode())


def test_the_embedded_base_is_pretrained():
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model = AutoModelForCausalLM.from_pretrained(FOLDER, torch_dtype=torch.float32)
    torch.manual_seed(0)
    random = AutoModelForCausalLM.from_config(model.config)
    assert bits_per_byte(model, tokenizer) < 0.6 * bits_per_byte(random, tokenizer)
    assert model.num_parameters() < 10_000_000


@pytest.mark.parametrize("text", ["", "plain", " two  spaces ", "évening 😀 日本\n"])
def test_its_tokenizer_loses_nothing(text):
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_encoder_is_matched():
    """The same shape, tokenizer, text and number of tokens; only the objective differs."""
    one, other = (json.loads((folder / "pretraining.json").read_text()) for folder in (FOLDER, ENCODER))
    for name in ("tokens_seen", "parameters", "text", "valid"):
        assert one[name] == other[name], name
    assert one["settings"]["model"] == other["settings"]["model"]
    assert (one["settings"]["training"]["objective"], other["settings"]["training"]["objective"]) == ("clm", "mlm")
    assert (FOLDER / "tokenizer.json").read_bytes() == (ENCODER / "tokenizer.json").read_bytes()


@torch.inference_mode()
def test_the_encoder_fills_in_what_is_hidden():
    tokenizer = AutoTokenizer.from_pretrained(ENCODER)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    hidden = ids.clone()
    hidden[:, ::7] = tokenizer.mask_token_id
    truth = ids[0, ::7]
    nats = []
    for both_ways in (False, True):
        model = AutoModelForCausalLM.from_pretrained(ENCODER, torch_dtype=torch.float32)
        if both_ways:
            see_both_ways(model)
        scores = model(input_ids=hidden).logits[0, ::7].log_softmax(-1)
        nats.append(-scores[torch.arange(len(truth)), truth].mean().item())
    causal, bidirectional = nats
    assert bidirectional < 0.7 * causal
