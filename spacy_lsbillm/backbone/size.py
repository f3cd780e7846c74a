"""The size of a base, from its config.json."""

from dataclasses import dataclass
from pathlib import Path

from .base import BaseSettings
from .base_config import longest_position, read_config
from .skeleton import skeleton


@dataclass(frozen=True)
class BaseSize:
    """The size of a base, from its config.json.

    layers (int): Layers of the decoder.
    width (int): Width of its states.
    parameters (int): Parameters of the whole model, tied ones counted once.
    longest (int | None): The longest position, in pieces; None: there is no limit.
    """

    layers: int
    width: int
    parameters: int
    longest: int | None = None

    def __str__(self) -> str:
        return f"{self.layers} layers, width {self.width}, {in_words(self.parameters)} parameters"


def size_of(folder: Path) -> BaseSize:
    """The size of the base in a folder. Its weights are not read.

    RAISES (BaseError): The folder has no config of a base that can be used here.
    """
    config = read_config(folder, BaseSettings(str(folder)))
    model = skeleton(config)
    model.tie_weights()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return BaseSize(config.num_hidden_layers, config.hidden_size, parameters, longest_position(config))


def in_words(number: int) -> str:
    """A rounded number of parameters, such as "135M"."""
    if number < 10**6:
        return f"{number / 10**6:.1f} million"
    if number < 10**9:
        return f"{number / 10**6:.0f} million"
    return f"{number / 10**9:.1f} billion"
