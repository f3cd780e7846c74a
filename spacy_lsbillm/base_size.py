"""How large a base is, and which settings of a training fit that."""

from dataclasses import dataclass
from pathlib import Path

from .backbone.base import BaseSettings, longest_position, read_config, skeleton


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


@dataclass(frozen=True)
class Fitted:
    """Settings for bases of about one size.

    most (int | None): Parameters up to which they are taken, half-way (as a ratio) to the next size; None: any number.
    learn_rate (float): The highest of the optimizer, that of the heads.
    learn_rate_scale (float): The adapter's, in units of that.
    warmup (float): The share of the steps over which it rises from 0.
    r (int), alpha (int): Of the adapter.
    cpu_steps (int), cpu_batch_words (int): Length of a training on a CPU, and the words of its batches.
    source (str): Whether they are measured here, and on which base, or published.
    """

    most: int | None
    learn_rate: float
    learn_rate_scale: float
    warmup: float
    r: int
    alpha: int
    cpu_steps: int
    cpu_batch_words: int
    source: str


# docs/choosing-settings.md says what was tried.
SIZES = (
    Fitted(26_000_000, 0.008, 0.5, 0.1, 16, 32, 1000, 600, "measured on the embedded base, 5 million parameters"),
    Fitted(285_000_000, 0.004, 0.25, 0.1, 16, 32, 500, 150, "measured on SmolLM2, 135 million parameters"),
    Fitted(
        None,
        0.0002,
        1.0,
        0.1,
        16,
        32,
        500,
        150,
        "as published for bases of 0.6 to 9 billion parameters; not measured here",
    ),
)


def size_of(folder: Path) -> BaseSize:
    """Of a base in a folder; its weights are not read.

    RAISES (BaseError): It holds no config of a base that can be used here.
    """
    config = read_config(folder, BaseSettings(str(folder)))
    model = skeleton(config)
    model.tie_weights()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return BaseSize(config.num_hidden_layers, config.hidden_size, parameters, longest_position(config))


def fitted_to(size: BaseSize) -> Fitted:
    """The settings for a base of this size."""
    return next(one for one in SIZES if one.most is None or size.parameters <= one.most)


def in_words(number: int) -> str:
    """A number of parameters, rounded."""
    if number < 10**9:
        return f"{number / 10**6:.0f} million"
    return f"{number / 10**9:.1f} billion"
