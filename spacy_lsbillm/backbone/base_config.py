"""The config of a base, as far as its settings use it."""

import math
from pathlib import Path
from typing import Any

import transformers

from ..errors import BaseError
from .base import BaseSettings
from .config_file import load_config
from .int8_files import QUANTIZATION_CONFIG, is_int8
from .plain_files import refuse_endless

# Far more than any model has, yet few enough for lists with an entry per layer.
MOST_LAYERS = 10_000


# transformers renamed it in 4.56.
DTYPE_SETTING = (
    "dtype" if tuple(int(part) for part in transformers.__version__.split(".")[:2]) >= (4, 56) else "torch_dtype"
)


def read_config(folder: Path, settings: BaseSettings) -> Any:
    """Read the config of a base, reduced to the requested depth.

    RAISES (BaseError): There is no readable config, it is not of a causal language model, or it has too few layers.
    """
    refuse_endless(folder)
    config = load_config(folder, settings.name)
    if is_int8(folder):
        # transformers does not know this model type.
        delattr(config, QUANTIZATION_CONFIG)
    if type(config.num_hidden_layers) is not int or config.num_hidden_layers < 1:
        raise BaseError(
            f"{folder / 'config.json'} says num_hidden_layers = {config.num_hidden_layers!r}: it must be a number of "
            f"layers, at least 1."
        )
    if config.num_hidden_layers > MOST_LAYERS:
        raise BaseError(
            f"{folder / 'config.json'} says num_hidden_layers = {config.num_hidden_layers}; at most {MOST_LAYERS} are "
            f"allowed, more than any model has. Fetch or copy it again."
        )
    if settings.depth is not None:
        layers = config.num_hidden_layers
        if settings.depth > layers:
            raise BaseError(
                f"depth = {settings.depth} is more than the {layers} layers of {settings.name!r}. Use at most {layers}."
            )
        cut_config(config, settings.depth)
    return config


def config_dtype(config: Any) -> str | None:
    """The dtype in a base's config, which is what "auto" stands for; None if there is none."""
    named = getattr(config, DTYPE_SETTING, None)
    return None if named is None else str(named).removeprefix("torch.")


def cut_config(config: Any, depth: int) -> None:
    """Remove the upper layers from a config, also from its lists with an entry per layer. The config is changed."""
    layers = config.num_hidden_layers
    for key, value in vars(config).items():
        if isinstance(value, list) and len(value) == layers:
            setattr(config, key, value[:depth])
    config.num_hidden_layers = depth


def longest_position(config: Any) -> int | None:
    """The number of positions that the base was made for; None if it has no limit."""
    length = getattr(config, "max_position_embeddings", None)
    return int(length) if length and math.isfinite(length) else None
