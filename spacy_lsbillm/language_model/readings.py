"""Turning a tuned pipeline back into a causal language model, which predicts and writes text."""

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
from ..backbone.loading import load_base
from ..backbone.location import resolve_folder
from ..backbone.tokenizer import load_tokenizer
from ..backbone.vocabulary import embedding_rows
from ..errors import SettingError
from ..files import check_seal
from ..layers import backbone_shim
from ..pipeline.config_blocks import find_transformer

BASE, TUNED, OFF = "base", "tuned, read causally", "adapter off, mask restored"


@dataclass(frozen=True)
class Reading:
    """One way to read a model.

    name (str): What is read, as reports name it.
    model (PreTrainedModel): The causal language model, in evaluation mode.
    tokenizer (Any): The tokenizer of the base.
    backbone (Backbone | None): The backbone whose adapter `adapted` is about; None for a base without one.
    adapted (bool): Whether the adapter is on; if not, it is switched off only while the model is read.
    """

    name: str
    model: PreTrainedModel
    tokenizer: Any
    backbone: Backbone | None = None
    adapted: bool = True

    @contextlib.contextmanager
    def model_as_read(self) -> Iterator[PreTrainedModel]:
        """The model, in the state in which it is read."""
        if self.backbone is None or self.adapted:
            yield self.model
        else:
            with self.backbone.model.disable_adapter():
                yield self.model


def base_reading(settings: BaseSettings, device: torch.device, name: str = BASE) -> Reading:
    """The reading of a base that was not tuned.

    RAISES (BaseError): The base is not available.
    """
    folder = resolve_folder(settings.name, settings.revision)
    model = load_base(folder, settings, device)
    return Reading(name, model, load_tokenizer(folder, embedding_rows(model)))


def pipeline_readings(pipeline: Path, device: torch.device, component: str | None = None) -> list[Reading]:
    """Three readings of a pipeline as a language model.

    They are its base, the tuned model with every layer causal, and the same model with its adapter switched off, which
    should equal the base.

    component (str | None): The name of the billm_transformer; needed if there are several.
    RAISES (SettingError, ...): The pipeline has no adapter that can be switched off, or cannot be read.
    """
    config = load_config(pipeline / "config.cfg", interpolate=True)
    name, block = find_transformer(config, component, str(pipeline / "config.cfg"))
    model: Model = registry.resolve({"model": block["model"]})["model"]
    settings = backbone_shim(model).settings.backbone
    check_seal(pipeline / name)
    with warnings.catch_warnings():
        # The model is read under another mask than it was trained with on purpose.
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
    """Let a model continue a prompt.

    tokens (int): The maximum number of tokens to write.
    seed (int): The seed of the sampling.
    temperature (float): The temperature of the sampling; 0 takes the most probable token each time.
    RETURNS (str): The continuation, without the prompt.
    RAISES (SettingError): The prompt gives no tokens.
    """
    ids = reading.tokenizer(prompt, return_tensors="pt", verbose=False)["input_ids"]
    if not ids.shape[1]:
        raise SettingError(f"the prompt {prompt!r} gives no tokens. Give one with words in it.")
    with reading.model_as_read() as model, torch.inference_mode():
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
