"""Training settings by the size of the base."""

from dataclasses import dataclass

from ..backbone.size import BaseSize


@dataclass(frozen=True)
class Fitted:
    """Settings for bases of about one size.

    most (int | None): Maximum number of parameters, half-way (as a ratio) to the next size; None: any number.
    learn_rate (float): The optimizer's peak learning rate, used by the heads.
    learn_rate_scale (float): The adapter's rate relative to it.
    warmup (float): The fraction of the steps over which the rate rises from 0.
    r (int), alpha (int): The adapter's rank and scale.
    cpu_steps (int), cpu_batch_words (int): Training steps and words per batch on a CPU.
    source (str): Whether they were measured here, and on which base, or published.
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


def fitted_to(size: BaseSize) -> Fitted:
    """The settings for a base of this size."""
    return next(one for one in SIZES if one.most is None or size.parameters <= one.most)
