"""Loading a backbone. Everything that can be checked without the weights is checked before they are read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import BaseError
from .adapter import add_adapter, check_dora, check_targets, read_adapter
from .base import BaseSettings
from .base_config import config_dtype, read_config
from .config_arithmetic import arithmetic_of
from .families import attention_for, decoder_of, layers_of
from .fingerprint import checked_fingerprint
from .layer_mix import ScalarMix, mixed_layers
from .location import resolve_folder
from .mask import MaskPlan
from .matching import check_weights
from .model import Backbone, BackboneSettings
from .origin import Origin, commit_of, license_of, made_with_of
from .proved import family_of
from .seen_bases import remember_folder
from .sharing import shared_base
from .skeleton import making_modules, skeleton_for
from .tokenizer import load_tokenizer
from .unmask import unmask_layers
from .vocabulary import embedding_rows
from .weights import load_causal_lm


def load_backbone(
    settings: BackboneSettings,
    *,
    device: torch.device,
    adapter: Path | None = None,
    mix: Path | None = None,
    expected_fingerprint: str | None = None,
    at: Path | None = None,
    tokenizer_folder: Path | None = None,
    int8: bool = False,
) -> Backbone:
    """Load a base, add an adapter and remove the causal mask from the layers to unmask.

    Everything that can be checked without reading the weights is checked first.

    adapter (Path | None): A stored adapter, instead of a new one.
    mix (Path | None): The folder of a stored mix, instead of a new one.
    expected_fingerprint (str | None): Refuse any other base.
    at (Path | None): The folder of the base, if it is not where its name says.
    tokenizer_folder (Path | None): Where the tokenizer is, if not with the base.
    int8 (bool): Whether the weights in the folder are in eight bits (`int8_files`).
    RAISES (BaseError, MaskError, AdapterError, StorageError): A part cannot be read or does not fit the others.
    """
    base, lora = settings.base, settings.lora
    folder = at or resolve_folder(base.name, base.revision)
    config = read_config(folder, base)
    family = family_of(config, base.name)
    base = replace(base, attention=attention_for(family, base.attention, base.name))
    if base.dtype == "auto":
        base = replace(base, auto_dtype=base.auto_dtype or config_dtype(config))
    plan = MaskPlan.parse(settings.unmask, config.num_hidden_layers)
    layers = mixed_layers(settings.scalar_mix, config.num_hidden_layers)
    empty = skeleton_for(folder, config)
    if layers and getattr(decoder_of(empty, family), "project_out", None) is not None:
        raise BaseError(
            f"scalar_mix = {settings.scalar_mix!r} is not allowed with the base {base.name!r}: its layers have states "
            f"of {config.hidden_size} numbers, which its output projects to {config.word_embed_proj_dim}. Use null."
        )
    check_weights(folder, empty, int8)
    if lora is not None:
        check_targets(empty, lora)
        check_dora(lora, base, device)
    tokenizer = load_tokenizer(tokenizer_folder or folder, embedding_rows(empty))
    actual_fingerprint = checked_fingerprint(folder, base.name, expected_fingerprint)
    shared = shared_base(folder, actual_fingerprint, base, empty, device)
    model: Any = shared.tree(config.num_hidden_layers, family)
    unmask_layers(layers_of(decoder_of(model, family), family), plan)
    if settings.gradient_checkpointing:
        # transformers renamed the method in 5.x.
        enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
    if adapter is not None:
        model = read_adapter(model, adapter, lora)
    elif lora is not None:
        model = add_adapter(model, lora)
    # peft's wrapper and modules start in training mode.
    model.eval()
    scalar_mix = None
    if layers:
        with making_modules:
            scalar_mix = ScalarMix(layers).to(device)
    if scalar_mix is not None and mix is not None:
        scalar_mix.read(mix)
    arithmetic = arithmetic_of(folder)
    remember_folder(actual_fingerprint, arithmetic, folder)
    origin = Origin(
        actual_fingerprint,
        commit=commit_of(folder),
        license=license_of(folder),
        arithmetic=arithmetic,
        made_with=made_with_of(folder),
    )
    return Backbone(model, shared, scalar_mix, tokenizer, plan, settings, family, folder, origin, actual_fingerprint)


def load_base(folder: Path, settings: BaseSettings, device: torch.device) -> PreTrainedModel:
    """Load the causal language model of a base, without mask plan or adapter, with the attention that suits it.

    RAISES (BaseError): It cannot be loaded, or its family is not supported.
    """
    family = family_of(read_config(folder, settings), settings.name)
    attention = attention_for(family, settings.attention, settings.name)
    return load_causal_lm(folder, replace(settings, attention=attention), device)
