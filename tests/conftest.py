"""Tiny models and tokenizers, made here: nothing is fetched."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

TEXTS = [
    "book a table for two at an italian place in boston tomorrow night",
    "play some jazz by miles davis",
    "will it rain in paris this weekend ?",
    "add this song to my playlist called évening mood",
]
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
# A window longer than any text of the tests that look at reach.
WINDOW = {"sliding_window": 48}
FAMILIES = {
    "llama": lambda **k: LlamaForCausalLM(LlamaConfig(**SHAPE, **k)),
    "mistral": lambda **k: MistralForCausalLM(MistralConfig(**{**SHAPE, **WINDOW, **k})),
    "qwen2": lambda **k: Qwen2ForCausalLM(
        Qwen2Config(**{**SHAPE, **WINDOW, "use_sliding_window": True, "max_window_layers": 2, **k})
    ),
}


def make_tokenizer(start: bool = True) -> PreTrainedTokenizerFast:
    """A small byte-level BPE tokenizer, with or without a start token, and without a padding token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    if start:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def make_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """make_base(family, seed=0, **config): the folder of a tiny randomly initialised model; made once a session."""
    made: dict[str, Path] = {}

    def make(family: str = "llama", seed: int = 0, start: bool = True, **config) -> Path:
        key = f"{family} {seed} {start} {config}"
        if key not in made:
            folder = tmp_path_factory.mktemp(family)
            tokenizer = make_tokenizer(start)
            torch.manual_seed(seed)
            model = FAMILIES[family](vocab_size=len(tokenizer), **config)
            # Large enough weights for the layers to matter; the usual initialisation of 0.02 leaves them near identity.
            for parameter in model.parameters():
                parameter.data.mul_(5 if parameter.ndim > 1 else 1)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            made[key] = folder
        return made[key]

    return make


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny tensors are slower on several threads."""
    torch.set_num_threads(1)
