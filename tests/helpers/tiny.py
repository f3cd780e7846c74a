"""Tiny models of every family and tokenizers of several kinds, made here without downloads. Needs no spaCy."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

TEXTS = [
    "book a table for two at an italian place in boston tomorrow night",
    "play some jazz by miles davis",
    "will it rain in paris this weekend ?",
    "add this song to my playlist called évening mood",
]
LAYERS = 4
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
# Wider than any text in the tests of how far a piece reaches.
WINDOW = 48
HALF = ["sliding_attention", "full_attention"] * (LAYERS // 2)
# Settings that a family's config needs in addition to SHAPE, or instead.
FAMILIES: dict[str, dict] = {
    "llama": {},
    "mistral": {"sliding_window": WINDOW},
    "qwen2": {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 2},
    "qwen3": {"head_dim": 8},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": WINDOW, "layer_types": HALF, "attn_logit_softcapping": 5.0},
    "gemma3_text": {"head_dim": 8, "sliding_window": WINDOW, "layer_types": HALF},
    "phi": {},
    "phi3": {"sliding_window": WINDOW},
    "olmo": {},
    "olmo2": {},
    "gpt_neox": {},
    "granite": {},
    "smollm3": {"no_rope_layers": [1, 0, 1, 1]},
    "cohere": {},
    "starcoder2": {"sliding_window": WINDOW},
    "gpt2": {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0},
    "opt": {"dropout": 0.0, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "falcon": {"multi_query": True, "new_decoder_architecture": False},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "modernbert-decoder": {"local_attention": WINDOW, "layer_types": HALF, "pad_token_id": 0},
    "gemma4_text": {
        "head_dim": 8,
        "global_head_dim": 16,
        "sliding_window": WINDOW,
        "layer_types": HALF,
        "hidden_size_per_layer_input": 0,
    },
}
# Older versions of transformers lack some families.
FAMILIES = {family: settings for family, settings in FAMILIES.items() if family in CONFIG_MAPPING}
# Families in which some layers have a sliding window.
WINDOWED = FAMILIES.keys() & {"mistral", "phi3", "starcoder2", "qwen2", "gemma2", "gemma3_text"}


def make_model(family: str, seed: int, vocab_size: int, **config) -> PreTrainedModel:
    """A randomly initialised causal LM whose weights are large enough for its layers to matter.

    The usual initialisation with 0.02 leaves them near identity.
    """
    torch.manual_seed(seed)
    settings = AutoConfig.for_model(family, **{**SHAPE, **FAMILIES[family], **config}, vocab_size=vocab_size)
    model = AutoModelForCausalLM.from_config(settings)
    for parameter in model.parameters():
        parameter.data.mul_(5 if parameter.ndim > 1 else 1)
    return model


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
