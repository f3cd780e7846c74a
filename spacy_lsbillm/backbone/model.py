"""The backbone: a base model, its mask plan and its adapter, as one thing that turns pieces into states."""

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ..errors import BaseError
from .adapter import LoraSettings, add_adapter, check_targets, read_adapter
from .arithmetic import arithmetic_of
from .base import (
    BaseSettings,
    check_weights,
    load_tokenizer,
    making_modules,
    read_config,
    skeleton,
)
from .blocks import causal_blocks, has_windows
from .families import Family, decoder_of, family_of, layers_of
from .fingerprint import checked_fingerprint
from .known import remember_folder
from .location import Origin, commit_of, license_of, made_with_of, resolve_folder
from .mask import MaskPlan, check_notation
from .mix import ScalarMix, mixed_layers
from .sharing import SharedBase, over_the_same_weights, shared_base
from .unmask import unmask_layers


@dataclass(frozen=True)
class BackboneSettings:
    """Everything that decides what a backbone computes.

    base (BaseSettings): See there.
    unmask (str): The layers that attend in both directions, in mask notation.
    lora (LoraSettings | None): None leaves the base frozen.
    scalar_mix (str | None): The layers whose learned mix is the output, in mask notation; None for the last layer.
    gradient_checkpointing (bool): Keep no states of layers for the backward pass but compute them again: less memory,
        more time. The result is the same.
    """

    base: BaseSettings
    unmask: str = "all"
    lora: LoraSettings | None = None
    scalar_mix: str | None = None
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        check_notation(self.unmask)
        if self.scalar_mix is not None:
            check_notation(self.scalar_mix, "scalar_mix")


@dataclass(frozen=True)
class Backbone:
    """Use `load_backbone`.

    model (PreTrainedModel | PeftModel): The causal LM, wrapped by peft where there is an adapter.
    shared (SharedBase): Its frozen weights, which other backbones may use as well.
    mix (ScalarMix | None): The learned mix of layers, if the output is one.
    tokenizer (PreTrainedTokenizerFast): The base's.
    plan (MaskPlan): Which layers attend in both directions.
    settings (BackboneSettings): What was asked for.
    folder (Path): Where the base lies.
    origin (Origin): What is known of the base.
    fingerprint (str): Of the files that were loaded; a pipeline may hold a part of its base, or a merged one.
    merged (bool): Whether an adapter was folded into the base before it was stored.
    """

    model: PreTrainedModel | PeftModel
    shared: SharedBase
    mix: ScalarMix | None
    tokenizer: PreTrainedTokenizerFast
    plan: MaskPlan
    settings: BackboneSettings
    folder: Path
    origin: Origin
    fingerprint: str
    merged: bool = False

    @property
    def base(self) -> BaseSettings:
        """What was loaded."""
        return self.settings.base

    @property
    def config(self) -> Any:
        """The base's Hugging Face config, with the layers that are used."""
        return self.causal_lm.config

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The causal LM, with the adapter in its modules but without peft's wrapper."""
        return self.model.base_model.model if self.adapted else self.model

    @property
    def width(self) -> int:
        """The size of a state."""
        return int(self.causal_lm.get_output_embeddings().in_features)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def adapted(self) -> bool:
        """Whether there is an adapter."""
        return hasattr(self.model, "peft_config")

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """The adapter's parameters, by name."""
        return self._adapter_parameters.copy()

    @cached_property
    def _adapter_parameters(self) -> dict[str, nn.Parameter]:
        # To look through all modules takes a tenth of a small training step.
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def mix_parameters(self) -> dict[str, nn.Parameter]:
        """The mix's parameters, by name."""
        return {} if self.mix is None else {f"mix.{name}": value for name, value in self.mix.named_parameters()}

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by name: those of the adapter and of the mix."""
        return self.adapter_parameters() | self.mix_parameters()

    @property
    def packs(self) -> bool:
        """Whether several sequences may share a row of `states`, told apart by their positions."""
        return family_of(self.config, self.base.name).packs

    def states(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """The last layer's states, normalised as the language-model head would get them; or a mix of several layers'.

        input_ids (Tensor): Padded on the right, shape (batch, length); what stands in padding has no influence.
        attention_mask (Tensor): 1 for a piece, 0 for padding, shape (batch, length).
        position_ids (Tensor | None): Where rows hold several sequences, the place of each piece in its own; a new one
            begins wherever the next place is not the next number. 0 for padding. Shape (batch, length).
        RETURNS (Tensor): Shape (batch, length, width), in the base's dtype.
        """
        family = family_of(self.config, self.base.name)
        decoder = decoder_of(self.causal_lm, family)
        mask: Tensor | None = attention_mask
        if position_ids is not None:
            # Without a mask transformers looks for packed sequences itself, and makes one for each kind of layer.
            mask = None
            if not has_windows(self.config):
                mask = causal_blocks(position_ids, self.config._attn_implementation, self.causal_lm.dtype)
        output = decoder(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=position_ids,
            use_cache=False,
            output_hidden_states=self.mix is not None,
        )
        if self.mix is None:
            return output.last_hidden_state
        return self.mix(_normalised(output, self.mix.layers, decoder, family))

    def use_mask(self, notation: str | None) -> None:
        """Compute with other layers unmasked from now on. What is stored stays what was asked for, `plan`.

        notation (str | None): In mask notation; None goes back to `plan`.
        RAISES (MaskError): It cannot be read or does not fit the number of layers.
        """
        plan = self.plan if notation is None else MaskPlan.parse(notation, len(self.plan.unmasked))
        family = family_of(self.config, self.base.name)
        unmask_layers(layers_of(decoder_of(self.causal_lm, family), family), plan, family.causal_buffer)

    def to(self, device: torch.device) -> None:
        """Move the weights."""
        self.model.to(device)
        self.__dict__.pop("_adapter_parameters", None)
        if self.mix is not None:
            self.mix.to(device)

    def set_training(self, training: bool) -> None:
        """Switch dropout and gradient checkpointing on or off. Modules that are as they should be are left alone, which
        saves a tenth of a small training step."""
        if self.model.training != training:
            self.model.train(training)

    def twin(self) -> "Backbone":
        """A second backbone over the same base weights, which are shared, with its own copy of adapter and mix."""
        return replace(self, model=over_the_same_weights(self.model), mix=copy.deepcopy(self.mix))

    @property
    def alone(self) -> bool:
        """Whether no other pipeline holds the same weights. (Twins belong to the same pipeline.)"""
        # None where its own tree has made way for twins.
        return self.shared.users <= 1


def load_backbone(
    settings: BackboneSettings,
    *,
    device: torch.device,
    adapter: Path | None = None,
    mix: Path | None = None,
    expected_fingerprint: str | None = None,
    at: Path | None = None,
    tokenizer_folder: Path | None = None,
) -> Backbone:
    """Load a base, put an adapter on it and take the causal mask off. All that can be checked without reading the
    weights is checked first.

    adapter (Path | None): A stored adapter, instead of a fresh one.
    mix (Path | None): The folder of a stored mix, instead of a fresh one.
    expected_fingerprint (str | None): Refuse any other base.
    at (Path | None): The folder of the base, if it is not where its name says.
    tokenizer_folder (Path | None): Where the tokenizer is, if not with the base.
    RAISES (BaseError, MaskError, AdapterError, StorageError): Something does not fit, see there.
    """
    base, lora = settings.base, settings.lora
    folder = at or resolve_folder(base.name, base.revision)
    config = read_config(folder, base)
    family = family_of(config, base.name)
    plan = MaskPlan.parse(settings.unmask, config.num_hidden_layers)
    layers = mixed_layers(settings.scalar_mix, config.num_hidden_layers)
    empty = skeleton(config)
    if layers and getattr(decoder_of(empty, family), "project_out", None) is not None:
        raise BaseError(
            f"scalar_mix = {settings.scalar_mix!r} is not allowed with the base {base.name!r}: its layers have states "
            f"of {config.hidden_size} numbers, which its output projects to {config.word_embed_proj_dim}. Use null."
        )
    check_weights(folder, empty)
    if lora is not None:
        check_targets(empty, lora)
    tokenizer = load_tokenizer(tokenizer_folder or folder)
    found = checked_fingerprint(folder, base.name, expected_fingerprint)
    shared = shared_base(folder, found, base, config.num_hidden_layers, device)
    model: Any = shared.tree(config.num_hidden_layers, base.name)
    unmask_layers(layers_of(decoder_of(model, family), family), plan, family.causal_buffer)
    if settings.gradient_checkpointing:
        # transformers renamed the method in 5.x.
        enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
    if adapter is not None:
        model = read_adapter(model, adapter, lora)
    elif lora is not None:
        model = add_adapter(model, lora)
    # peft's wrapper and modules come in training mode.
    model.eval()
    scalar_mix = None
    if layers:
        with making_modules:
            scalar_mix = ScalarMix(layers).to(device)
    if scalar_mix is not None and mix is not None:
        scalar_mix.read(mix)
    arithmetic = arithmetic_of(folder)
    remember_folder(found, arithmetic, folder)
    origin = Origin(
        found,
        commit=commit_of(folder),
        license=license_of(folder),
        arithmetic=arithmetic,
        made_with=made_with_of(folder),
    )
    return Backbone(model, shared, scalar_mix, tokenizer, plan, settings, folder, origin, found)


def _normalised(output: Any, layers: tuple[int, ...], decoder: nn.Module, family: Family) -> list[Tensor]:
    """The states of chosen layers, each through the norm that follows the last one: layers below it leave a sum that
    grows with depth, which is not comparable between layers."""
    norm = decoder.get_submodule(family.norm) if getattr(decoder, family.norm) is not None else nn.Identity()
    states = output.hidden_states
    last = len(states) - 2
    return [output.last_hidden_state if layer == last else norm(states[layer + 1]) for layer in layers]
