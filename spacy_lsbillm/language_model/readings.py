"""A tuned pipeline's model read as what it was made from: a causal language model that predicts and writes text."""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from spacy.util import load_config, registry
from thinc.api import Model
from transformers import PreTrainedModel

from ..backbone import Backbone, BaseSettings, load_stored
from ..backbone.base import load_tokenizer
from ..backbone.loading import load_base
from ..backbone.location import resolve_folder
from ..backbone.vocabulary import embedding_rows
from ..errors import SettingError
from ..files import check_seal
from ..layers import backbone_shim
from ..pipeline.config_blocks import find_transformer

BASE, TUNED, OFF = "base", "tuned, read causally", "adapter off, mask restored"


@dataclass(frozen=True)
class Reading:
    """One way to read a model.

    name (str): What it is.
    model (PreTrainedModel): Causal, in evaluation mode.
    tokenizer (Any): The base's.
    backbone (Backbone | None): Whose adapter is on, or switched off while this is read.
    adapted (bool): Whether the adapter is on.
    """

    name: str
    model: PreTrainedModel
    tokenizer: Any
    backbone: Backbone | None = None
    adapted: bool = True

    @contextlib.contextmanager
    def on(self) -> Iterator[PreTrainedModel]:
        """The model, as it is to be read."""
        if self.backbone is None or self.adapted:
            yield self.model
        else:
            with self.backbone.model.disable_adapter():
                yield self.model


def base_reading(settings: BaseSettings, device: torch.device, name: str = BASE) -> Reading:
    """A base as it is.

    RAISES (BaseError): It cannot be had.
    """
    folder = resolve_folder(settings.name, settings.revision)
    model = load_base(folder, settings, device)
    return Reading(name, model, load_tokenizer(folder, embedding_rows(model)))


def pipeline_readings(pipeline: Path, device: torch.device, component: str | None = None) -> list[Reading]:
    """The base of a pipeline, the tuned model with every layer causal, and the same with its adapter switched off: the
    base again.

    component (str | None): The billm_transformer, if there are several.
    RAISES (SettingError, ...): The pipeline has no adapter that can be switched off, or cannot be read.
    """
    config = load_config(pipeline / "config.cfg", interpolate=True)
    name, block = find_transformer(config, component, str(pipeline / "config.cfg"))
    model: Model = registry.resolve({"model": block["model"]})["model"]
    settings = backbone_shim(model).settings.backbone
    check_seal(pipeline / name)
    with warnings.catch_warnings():
        # That it is read under another mask than it was trained with is the point.
        warnings.filterwarnings("ignore", message="this pipeline was trained with")
        tuned = load_stored(pipeline / name, replace(settings, unmask="none"), device)
    if tuned.stored_as or not tuned.adapted:
        raise SettingError(
            f"the transformer of {pipeline} has no adapter that could be switched off: it was "
            f"{f'saved with store_base = {tuned.stored_as}' if tuned.stored_as else 'trained without one'}."
        )
    base = load_base(tuned.folder, tuned.base, device)
    return [
        Reading(BASE, base, tuned.tokenizer),
        Reading(TUNED, tuned.causal_lm, tuned.tokenizer, tuned),
        Reading(OFF, tuned.causal_lm, tuned.tokenizer, tuned, adapted=False),
    ]


def continuation(reading: Reading, prompt: str, tokens: int, seed: int, temperature: float) -> str:
    """What a reading writes after a prompt.

    tokens (int): At most so many.
    seed (int): Of the sampling.
    temperature (float): Of the sampling; 0 takes the most probable token each time.
    RAISES (SettingError): The prompt gives no tokens.
    """
    ids = reading.tokenizer(prompt, return_tensors="pt", verbose=False)["input_ids"]
    if not ids.shape[1]:
        raise SettingError(f"the prompt {prompt!r} gives no tokens. Give one with words in it.")
    with reading.on() as model, torch.inference_mode():
        device = next(model.parameters()).device
        torch.manual_seed(seed)
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        ids = ids.to(device)
        written = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            pad_token_id=reading.tokenizer.eos_token_id or 0,
            **sampling,
        )
    return str(reading.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True))
