"""The settings of a pre-training run. The defaults are those of the shipped base, except for `compile`."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..errors import SettingError
from ..values import check_at_least, check_choice

OBJECTIVES = ("clm", "mlm")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class TokenizerSettings:
    """The byte-level BPE tokenizer that is trained on the text.

    vocab_size (int): Number of entries, including the 256 bytes and two special ones.
    every (int): Train on every n-th document.
    """

    vocab_size: int = 8192
    every: int = 4

    def __post_init__(self) -> None:
        check_at_least("tokenizer.vocab_size", self.vocab_size, 258)
        check_at_least("tokenizer.every", self.every, 1)


@dataclass(frozen=True)
class ShapeSettings:
    """The shape of a LLaMA-architecture model with tied embeddings.

    layers (int): Number of layers.
    width (int): Width of the states.
    heads (int): Attention heads per layer; they divide the width into parts of an even size.
    key_value_heads (int): Heads of keys and values, a divisor of `heads`; equal to it for full multi-head attention.
    feed_forward (int): Width of the feed-forward layers.
    positions (int): Tokens per block in training, and the longest sequence that the model accepts.
    """

    layers: int = 8
    width: int = 192
    heads: int = 6
    key_value_heads: int = 6
    feed_forward: int = 512
    positions: int = 256

    def __post_init__(self) -> None:
        for one in fields(self):
            check_at_least(f"model.{one.name}", getattr(self, one.name), 1)
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise SettingError(
                f"model.width = {self.width} does not divide into model.heads = {self.heads} heads of an even size."
            )
        if self.heads % self.key_value_heads:
            raise SettingError(
                f"model.heads = {self.heads} is not a multiple of model.key_value_heads = {self.key_value_heads}."
            )


@dataclass(frozen=True)
class TrainingSettings:
    """How the model is trained.

    objective (str): "clm", the next token, causal; or "mlm", hidden tokens, every layer in both directions.
    tokens (int): Number of tokens to train on. If the text has fewer, it is read several times, each time in another
        order.
    batch (int): Blocks per optimizer step.
    micro_batch (int): Blocks per forward pass; a step adds up the gradients of its passes.
    learn_rate (float): The highest rate, which is reached after `warmup_steps`.
    final_rate (float): The last rate, as a fraction of the highest; a cosine leads there.
    warmup_steps (int): Steps over which the rate rises linearly.
    weight_decay (float): Weight decay of AdamW, for matrices only.
    beta2 (float): The second beta of AdamW.
    grad_clip (float): The maximum norm of all gradients together.
    mask_rate (float): The fraction of tokens that "mlm" hides.
    lowercase_every (int): Convert every n-th document to lower case, since users often type without capitals; 0 for
        none.
    precision (str): Dtype of the arithmetic; weights and optimizer are in float32. "auto" is bfloat16 where the
        hardware supports it.
    compile (bool): Use torch.compile: the first step takes a minute or more, every other one less time.
    checkpoint_every (int): Steps between checkpoints, which are also the points of the learning curve.
    seed (int): Seed of the weights, the order of the blocks and the hidden tokens.
    """

    objective: str = "clm"
    tokens: int = 25_000_000
    batch: int = 16
    micro_batch: int = 16
    learn_rate: float = 3e-3
    final_rate: float = 0.03
    warmup_steps: int = 200
    weight_decay: float = 0.1
    beta2: float = 0.98
    grad_clip: float = 1.0
    mask_rate: float = 0.3
    lowercase_every: int = 5
    precision: str = "auto"
    compile: bool = False
    checkpoint_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("training.objective", self.objective, OBJECTIVES)
        check_choice("training.precision", self.precision, PRECISIONS)
        for name in ("tokens", "batch", "micro_batch", "checkpoint_every"):
            check_at_least(f"training.{name}", getattr(self, name), 1)
        for name in ("warmup_steps", "lowercase_every", "seed"):
            check_at_least(f"training.{name}", getattr(self, name), 0)
        for name, low, high in (
            ("learn_rate", 0.0, 1.0),
            ("final_rate", 0.0, 1.0),
            ("weight_decay", 0.0, 10.0),
            ("beta2", 0.0, 1.0),
            ("mask_rate", 0.01, 0.99),
            ("grad_clip", 1e-6, 1e6),
        ):
            value = getattr(self, name)
            if type(value) not in (int, float) or not low <= value <= high:
                raise SettingError(f"training.{name} = {value!r} is not allowed: it must be a number, {low} to {high}.")
        if type(self.compile) is not bool:
            raise SettingError(f"training.compile = {self.compile!r} is not allowed: use true or false.")
        if self.batch % self.micro_batch:
            raise SettingError(
                f"training.batch = {self.batch} is not a multiple of training.micro_batch = {self.micro_batch}."
            )


@dataclass(frozen=True)
class PretrainingSettings:
    """All settings of a run, in the sections of its config file."""

    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    model: ShapeSettings = field(default_factory=ShapeSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    @classmethod
    def read(cls, sections: dict[str, dict[str, Any]]) -> "PretrainingSettings":
        """Create the settings from the sections of a config; omitted ones have their defaults.

        RAISES (SettingError): There is an unknown section or setting, or a value out of its range.
        """
        kinds = {one.name: one.default_factory for one in fields(cls)}
        _known("section", sections, list(kinds), "")
        for name, section in sections.items():
            _known("setting", section, [one.name for one in fields(kinds[name])], f"{name}.")  # type: ignore[arg-type]
        return cls(**{name: kinds[name](**section) for name, section in sections.items()})  # type: ignore[operator]

    def as_sections(self) -> dict[str, dict[str, Any]]:
        """The settings by section, for a config file or a record."""
        return asdict(self)

    @property
    def steps(self) -> int:
        """The number of optimizer steps of the run."""
        return self.training.tokens // (self.training.batch * self.model.positions)


def _known(what: str, given: dict[str, Any], names: list[str], prefix: str) -> None:
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise SettingError(
            f"there is no {what} {prefix}{unknown[0]}. Use: {', '.join(prefix + name for name in names)}."
        )
