"""The backbone: a base model with its mask plan and its adapter, which turns pieces into states."""

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ..errors import SettingError
from ..values import is_flag
from .adapter import LoraSettings, is_adapted
from .base import BaseSettings
from .families import Family, decoder_of, layers_of
from .layer_mix import ScalarMix
from .mask import MaskPlan, check_notation
from .origin import Origin
from .packed_mask import causal_blocks, has_windows
from .sharing import SharedBase, over_the_same_weights
from .unmask import unmask_layers, weigh_right

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class BackboneSettings:
    """Everything that decides what a backbone computes.

    base (BaseSettings): Which base, and in what form it is loaded.
    unmask (str): The layers that attend in both directions, in mask notation.
    lora (LoraSettings | None): The adapter; None leaves the base frozen.
    scalar_mix (str | None): The layers whose learned mix is the output, in mask notation; None for the last layer.
    gradient_checkpointing (bool): Recompute the states of layers in the backward pass instead of keeping them: less
        memory, more time. The result is the same.
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
        if not is_flag(self.gradient_checkpointing):
            raise SettingError(
                f"gradient_checkpointing = {self.gradient_checkpointing!r} is not allowed: use true or false."
            )


@dataclass(frozen=True)
class Backbone:
    """A loaded base with its mask plan and its adapter. Create one with `load_backbone`.

    model (PreTrainedModel | PeftModel): The causal LM, wrapped by peft if there is an adapter.
    shared (SharedBase): Its frozen weights, which other backbones may use as well.
    mix (ScalarMix | None): The learned mix of layers, if that is the output.
    tokenizer (PreTrainedTokenizerFast): The base's tokenizer.
    plan (MaskPlan): Which layers attend in both directions.
    settings (BackboneSettings): The settings it was loaded with.
    family (Family): The structure of the model.
    folder (Path): The folder of the base.
    origin (Origin): What is known about the source of the base.
    fingerprint (str): Fingerprint of the loaded files; a pipeline may hold a part of its base, or a merged one.
    stored_as (str | None): "merged" or "int8" if an adapter was folded into the base before it was stored, or the
        weights were rounded: it can then neither be stored in another form nor trained. Else None.
    """

    model: "PreTrainedModel | PeftModel"
    shared: SharedBase
    mix: ScalarMix | None
    tokenizer: PreTrainedTokenizerFast
    plan: MaskPlan
    settings: BackboneSettings
    family: Family
    folder: Path
    origin: Origin
    fingerprint: str
    stored_as: str | None = None

    @property
    def base(self) -> BaseSettings:
        """The settings of the loaded base."""
        return self.settings.base

    @property
    def config(self) -> Any:
        """The base's Hugging Face config, with the layers that are used."""
        return self.causal_lm.config

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The causal LM with the adapter in its modules but without peft's wrapper."""
        return self.model.base_model.model if self.adapted else self.model

    @property
    def width(self) -> int:
        """The width of the states, and so of token vectors."""
        return int(self.causal_lm.get_output_embeddings().in_features)

    @property
    def device(self) -> torch.device:
        """The device on which the weights are, and on which states are computed."""
        return next(self.model.parameters()).device

    @property
    def adapted(self) -> bool:
        """Whether there is an adapter; a frozen base has none."""
        return hasattr(self.model, "peft_config")

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """The adapter's parameters, by name."""
        return self._adapter_parameters.copy()

    @cached_property
    def _adapter_parameters(self) -> dict[str, nn.Parameter]:
        # Looking through all modules takes a tenth of a small training step.
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    @cached_property
    def adapted_layers(self) -> tuple[Any, ...]:
        """peft's layers around linear ones. To look through all modules takes as long as a small head."""
        return tuple(module for module in self.causal_lm.modules() if is_adapted(module)) if self.adapted else ()

    def mix_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters of the layer mix, by name."""
        return {} if self.mix is None else {f"mix.{name}": value for name, value in self.mix.named_parameters()}

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by name: those of the adapter and of the layer mix."""
        return self.adapter_parameters() | self.mix_parameters()

    @property
    def packs(self) -> bool:
        """Whether several sequences may share a row of `states`, separated by their positions."""
        return self.family.packs

    def states(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """The last layer's states as the language-model head would receive them, normalised, or the mix of layers.

        input_ids (Tensor): Padded on the right, shape (batch, length). The ids in padding have no influence.
        attention_mask (Tensor): 1 for a piece, 0 for padding, shape (batch, length).
        position_ids (Tensor | None): If rows hold several sequences, the position of each piece in its own, 0 for
            padding; a new sequence begins wherever the position is not the previous one plus 1. Shape (batch, length).
        RETURNS (Tensor): Shape (batch, length, width), in the base's dtype.
        """
        decoder = decoder_of(self.causal_lm, self.family)
        output = decoder(
            **self._arguments(input_ids, attention_mask, position_ids), output_hidden_states=self.mix is not None
        )
        if self.mix is None:
            return output.last_hidden_state
        return self.mix(_normalised(output, self.mix.layers, decoder, self.family))

    def logits(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None, chosen: Tensor) -> Tensor:
        """The language-model head's scores at chosen pieces, with the scale, bias and cap of the family.

        input_ids (Tensor), attention_mask (Tensor), position_ids (Tensor | None): As in `states`.
        chosen (Tensor): True at the chosen pieces, shape (batch, length).
        RETURNS (Tensor): Shape (number of chosen pieces, vocabulary), row by row.
        """

        def pick(_: nn.Module, __: Any, output: Any) -> Any:
            output.last_hidden_state = output.last_hidden_state[chosen].unsqueeze(0)
            return output

        # The model itself runs the head, on the chosen states only: the logits of all pieces would take too much
        # memory.
        hook = decoder_of(self.causal_lm, self.family).register_forward_hook(pick)
        try:
            said = self.causal_lm(**self._arguments(input_ids, attention_mask, position_ids))
        finally:
            hook.remove()
        logits: Tensor = said.logits.squeeze(0)
        return logits

    def _arguments(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None) -> dict[str, Any]:
        """The arguments of the model; see `states`."""
        mask: Tensor | None = attention_mask
        placed = {}
        if position_ids is not None:
            placed["position_ids"] = position_ids
            # Without a mask transformers detects packed sequences itself, and builds a mask for each kind of layer.
            mask = None
            if not has_windows(self.config):
                mask = causal_blocks(position_ids, self.config._attn_implementation, self.causal_lm.dtype)
        return {"input_ids": input_ids, "attention_mask": mask, "use_cache": False, **placed}

    def use_mask(self, notation: str | None) -> None:
        """Compute with other layers unmasked from now on.

        `plan`, which is what a stored pipeline records, does not change.

        notation (str | None): In mask notation; None returns to `plan`.
        RAISES (MaskError): It cannot be read or does not fit the number of layers.
        """
        plan = self.plan if notation is None else MaskPlan.parse(notation, len(self.plan.unmasked))
        unmask_layers(layers_of(decoder_of(self.causal_lm, self.family), self.family), plan)

    def weigh_right(self, weight: float) -> None:
        """Weight the right side of unmasked layers from now on; see `unmask.weigh_right`."""
        weigh_right(layers_of(decoder_of(self.causal_lm, self.family), self.family), weight)

    def to(self, device: torch.device) -> None:
        """Move the weights, the adapter and the layer mix to a device."""
        self.model.to(device)
        self.__dict__.pop("_adapter_parameters", None)
        if self.mix is not None:
            self.mix.to(device)

    def set_training(self, training: bool) -> None:
        """Switch dropout and gradient checkpointing on or off.

        Modules already in the right mode are skipped, which saves a tenth of a small training step.
        """
        model: Any = self.model
        if model.training is not training:
            # After an interrupt the modules may be in different modes, whatever the model's own flag says.
            model.training = None
            for child in model.children():
                child.train(training)
            model.training = training

    def twin(self) -> "Backbone":
        """A second backbone that shares the base weights, with its own copy of adapter and mix."""
        return replace(self, model=over_the_same_weights(self.model), mix=copy.deepcopy(self.mix))

    @property
    def alone(self) -> bool:
        """Whether no other pipeline uses the same weights; twins belong to the same pipeline."""
        # None where twins have replaced its own tree.
        return self.shared.users <= 1


def _normalised(output: Any, layers: tuple[int, ...], decoder: nn.Module, family: Family) -> list[Tensor]:
    """The states of chosen layers, each normalised by the norm after the last layer.

    The unnormalised sums grow with depth and are not comparable between layers.
    """
    norm = nn.Identity() if family.norm is None else decoder.get_submodule(family.norm)
    states = output.hidden_states
    last = len(states) - 2
    return [output.last_hidden_state if layer == last else norm(states[layer + 1]) for layer in layers]
