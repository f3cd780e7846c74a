"""Making models without weights."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..errors import BaseError
from .tensor_files import stored_tensors

try:
    # transformers 5.
    from transformers.initialization import no_init_weights
except ImportError:
    from transformers.modeling_utils import no_init_weights

# To leave weights uninitialised, transformers replaces torch's own initialising functions, for all threads: two such
# contexts at a time would restore them in the wrong order, and modules that other threads create meanwhile would hold
# arbitrary values.
making_modules = threading.RLock()


def skeleton(config: Any) -> PreTrainedModel:
    """Create the causal LM of a config without weights (on the meta device), for example to check settings against it.

    RAISES (BaseError): transformers cannot create a model from it.
    """
    try:
        with torch.device("meta"), uninitialised():
            return AutoModelForCausalLM.from_config(config)
    except Exception as error:
        # Configs are hardly validated: a fault in one may show anywhere in the code of a model.
        raise BaseError(
            f"no model of type {config.model_type!r} can be created from config.json: {type(error).__name__}: {error}"
        ) from error


def skeleton_for(folder: Path, config: Any) -> PreTrainedModel:
    """Create the `skeleton` of a base that has weights, which must fit the number of layers.

    RAISES (BaseError): There are fewer tensors than layers in the config, or no model can be created from it.
    """
    layers, tensors = config.num_hidden_layers, len(stored_tensors(folder))
    if layers > tensors:
        # Creating a thousand million layers would use up all memory.
        raise BaseError(
            f"{folder / 'config.json'} says num_hidden_layers = {layers!r}, but the folder has only {tensors} tensors. "
            f"Fetch or copy the base again."
        )
    return skeleton(config)


@contextlib.contextmanager
def uninitialised() -> Iterator[None]:
    """Context in which new modules have weights that are allocated but not initialised."""
    with making_modules, no_init_weights():
        yield
