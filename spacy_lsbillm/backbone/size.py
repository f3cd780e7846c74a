"""How large a base is, by its config.json."""

from dataclasses import dataclass
from pathlib import Path

from .base import BaseSettings, longest_position, read_config, skeleton


@dataclass(frozen=True)
class BaseSize:
    """What a base's config.json says of its size.

    layers (int): Of the decoder.
    width (int): Of its states.
    parameters (int): Of the whole model, tied ones once.
    longest (int | None): The longest position, in pieces; None: there is no limit.
    """

    layers: int
    width: int
    parameters: int
    longest: int | None = None

    def __str__(self) -> str:
        return f"{self.layers} layers, width {self.width}, {in_words(self.parameters)} parameters"


def size_of(folder: Path) -> BaseSize:
    """Of a base in a folder; its weights are not read.

    RAISES (BaseError): It holds no config of a base that can be used here.
    """
    config = read_config(folder, BaseSettings(str(folder)))
    model = skeleton(config)
    model.tie_weights()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return BaseSize(config.num_hidden_layers, config.hidden_size, parameters, longest_position(config))


def in_words(number: int) -> str:
    """A number of parameters, rounded."""
    if number < 10**9:
        return f"{number / 10**6:.0f} million"
    return f"{number / 10**9:.1f} billion"
