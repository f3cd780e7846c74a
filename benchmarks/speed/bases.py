"""The weights that are compared: a base with an adapter, and for the others the same merged into one plain model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from spacy_lsbillm.backbone import Backbone, read_record, save_backbone

from ..record import ROOT

EMBEDDED = ROOT / "assets" / "base"
# Shapes of models with random weights: Qwen2.5-0.5B and Llama 3 8B, without their vocabularies.
SHAPES: dict[str, dict[str, Any]] = {
    "0.5b": {
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "8b": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
}


@dataclass(frozen=True)
class Merged:
    """A plain model for programs that do not support adapters.

    folder (Path): A Hugging Face folder. Its tokenizer has a padding token.
    fingerprint (str): The fingerprint of the base that it was made of.
    """

    folder: Path
    fingerprint: str


def make_random(shape: str, folder: Path, device: torch.device) -> Path:
    """Write a base of a known shape with random weights in bfloat16 and the embedded base's tokenizer."""
    settings = dict(SHAPES[shape])
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings, vocab_size=len(tokenizer))
    config.max_position_embeddings = 2048
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, torch_dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Precision:
    """The precision of a base's weights.

    dtype (str): "float32", "bfloat16" or "float16"; for a quantised base, the dtype of its arithmetic.
    quantization (str | None): "nf4", or None.
    """

    dtype: str
    quantization: str | None = None

    def options(self, device: torch.device, plain: Sequence[str] | None = None) -> dict[str, Any]:
        """The arguments of `from_pretrained` for the same precision with transformers alone.

        plain (Sequence[str] | None): Modules that are not quantised, such as a head; None for the default of
            transformers.
        """
        number_type = getattr(torch, self.dtype)
        options: dict[str, Any] = {"torch_dtype": number_type, "device_map": {"": device}}
        if self.quantization:
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type=self.quantization,
                bnb_4bit_compute_dtype=number_type,
                llm_int8_skip_modules=None if plain is None else list(plain),
            )
        return options


def wake(backbone: Backbone) -> None:
    """Give the adapter, which starts as zero, random values, so that it cannot be left out."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in backbone.adapter_parameters().items():
            if "lora_B" in name:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.02)


def merge(backbone: Backbone, folder: Path) -> Merged:
    """Write base and adapter as one plain model."""
    folder.mkdir(parents=True)
    save_backbone(backbone, folder, "merged")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    # Both spacy-transformers and a padded loop need it.
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder / "merged")
    return Merged(folder / "merged", read_record(folder)["base"]["fingerprint"])
