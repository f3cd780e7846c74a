"""The base in assets/: a normal Hugging Face folder with weights that have learned something."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

FOLDER = Path(__file__).resolve().parent.parent / "assets" / "base"
TEXT = (
    "The river rises in the mountains in the north of the country, and flows to the south until it reaches the sea. "
    "In the nineteenth century, it was the most important route for trade between the coast and the towns of the "
    "interior, and several of its harbours were built at that time."
)


@torch.inference_mode()
def bits_a_byte(model, tokenizer):
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    nats = model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    return nats / math.log(2) / len(TEXT.encode())


def test_the_embedded_base_is_pretrained():
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model = AutoModelForCausalLM.from_pretrained(FOLDER, torch_dtype=torch.float32)
    torch.manual_seed(0)
    random = AutoModelForCausalLM.from_config(model.config)
    assert bits_a_byte(model, tokenizer) < 0.6 * bits_a_byte(random, tokenizer)
    assert model.num_parameters() < 10_000_000


@pytest.mark.parametrize("text", ["", "plain", " two  spaces ", "évening 😀 日本\n"])
def test_its_tokenizer_loses_nothing(text):
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
