"""The backbone: a base model, its mask plan and its adapter, as one thing that turns pieces into states."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ..errors import BaseError
from .adapter import LoraSettings, add_adapter, check_targets, read_adapter
from .base import (
    BaseSettings,
    check_weights,
    load_causal_lm,
    load_tokenizer,
    read_config,
    resolve_folder,
    skeleton,
)
from .families import decoder_layers
from .fingerprint import fingerprint
from .mask import MaskPlan
from .unmask import unmask_layers


@dataclass(frozen=True)
class Backbone:
    """Use `load_backbone`.

    model (PreTrainedModel | PeftModel): The causal LM, wrapped by peft where there is an adapter.
    tokenizer (PreTrainedTokenizerFast): The base's.
    plan (MaskPlan): Which layers attend in both directions.
    base (BaseSettings): What was loaded.
    folder (Path): Where it lies.
    fingerprint (str): Of the base's files.
    merged (bool): Whether an adapter was folded into the base before it was stored.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerFast
    plan: MaskPlan
    base: BaseSettings
    folder: Path
    fingerprint: str
    merged: bool = False

    @property
    def config(self) -> Any:
        """The base's Hugging Face config."""
        return self.model.config

    @property
    def width(self) -> int:
        """The size of a state."""
        return int(self.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def adapted(self) -> bool:
        """Whether there is an adapter."""
        return hasattr(self.model, "peft_config")

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by name: those of the adapter."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The last layer's states, normalised as the language-model head would get them.

        input_ids (Tensor): Padded on the right, shape (batch, length); what stands in padding has no influence.
        attention_mask (Tensor): 1 for a piece, 0 for padding, shape (batch, length).
        RETURNS (Tensor): Shape (batch, length, width), in the base's dtype.
        """
        causal_lm = self.model.base_model.model if self.adapted else self.model
        return causal_lm.get_decoder()(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state


def load_backbone(
    base: BaseSettings,
    unmask: str,
    *,
    device: torch.device,
    lora: LoraSettings | None = None,
    adapter: Path | None = None,
    expected_fingerprint: str | None = None,
    at: Path | None = None,
    tokenizer_folder: Path | None = None,
) -> Backbone:
    """Load a base, put an adapter on it and take the causal mask off. All that can be checked without reading the
    weights is checked first.

    lora (LoraSettings | None): For a fresh adapter; None leaves the base frozen.
    adapter (Path | None): A stored adapter, instead of a fresh one.
    expected_fingerprint (str | None): Refuse any other base.
    at (Path | None): The folder of the base, if it is not where its name says.
    tokenizer_folder (Path | None): Where the tokenizer is, if not with the base.
    RAISES (BaseError, MaskError, AdapterError): Something does not fit, see there.
    """
    folder = at or resolve_folder(base.name, base.revision)
    config = read_config(folder, base.name)
    plan = MaskPlan.parse(unmask, config.num_hidden_layers)
    check_weights(folder, config)
    if lora is not None:
        check_targets(skeleton(config), lora)
    tokenizer = load_tokenizer(tokenizer_folder or folder)
    found = fingerprint(folder)
    if expected_fingerprint is not None and found != expected_fingerprint:
        raise BaseError(
            f"the base {base.name!r} (in {folder}) is not the one this pipeline was trained on: its fingerprint is "
            f"{found}, the pipeline's is {expected_fingerprint}. Name the right folder or revision."
        )
    model: Any = load_causal_lm(folder, base, device)
    unmask_layers(decoder_layers(model, config.model_type), plan)
    if adapter is not None:
        model = read_adapter(model, adapter)
    elif lora is not None:
        model = add_adapter(model, lora)
    return Backbone(model, tokenizer, plan, base, folder, found)
