"""The settings of an adaptation and of its result."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..backbone import LoraSettings, check_notation
from ..backbone.base import DTYPES
from ..errors import SettingError
from ..pretraining.settings import PRECISIONS
from ..values import is_number, is_whole

MNTP, MLM, CAUSAL = OBJECTIVES = ("mntp", "mlm", "causal")
ALL, LORA = TRAIN = ("all", "lora")
BASE, ADAPTER = OUTPUT_KINDS = ("base", "adapter")
# Peak learning rates, if none is given.
RATES = {ALL: 3e-4, LORA: 1e-3}


@dataclass(frozen=True)
class AdaptationSettings:
    """How a base is trained further. Settings that are not in `as_sections` may change when a run is continued.

    objective (str): "mntp", a masked piece from the state before it (LLM2Vec: BehnamGhader et al., 2024, section 2);
        "mlm", from the state at its own position; "causal", each next piece.
    unmask (str): The layers that attend in both directions, in mask notation; "" for all, with "causal" for none.
    mask_share (float): The fraction of the pieces that are masked.
    mask_piece (str | None): The piece that replaces them; None: the tokenizer's mask token, else "_", else its unknown
        token.
    train (str): "all" weights, or "lora", an adapter.
    lora (LoraSettings | None): With "lora"; None for its defaults.
    tokens (int): Number of pieces to train on. If the text has fewer, it is repeated, each time in another order.
    length (int | None): Pieces per row; None: as many as the base has positions, at most 512.
    batch (int): Rows per optimizer step.
    micro_batch (int): Rows per forward pass; the gradients of the passes of a step are summed.
    learn_rate (float): The peak rate, after `warmup_steps`; a cosine leads from there to `final_rate` times as much. 0:
        that of `RATES`.
    weight_decay (float), beta2 (float): AdamW's; only matrices decay.
    grad_clip (float): The maximum norm of all gradients together.
    precision (str): Dtype of the arithmetic; trained weights are in float32. "auto" is bfloat16 if the hardware
        supports it.
    checkpoint_every (int): Steps between checkpoints, which are also the points of the learning curve.
    seed (int): Seed of the order of the rows, the masked pieces, the adapter and dropout.
    merge (float): The weight of the adapted weights in the result, the rest being the start: 1 for the adapted weights
        alone, 0 for the start.
    output_kind (str): "base", a folder like that of any base; "adapter", with "lora", in peft's format.
    dtype (str): The dtype in which the base is stored; "auto" for that of the start.
    """

    objective: str = MNTP
    unmask: str = ""
    mask_share: float = 0.2
    mask_piece: str | None = None
    train: str = ALL
    lora: LoraSettings | None = None
    tokens: int = 1_000_000
    length: int | None = None
    batch: int = 16
    micro_batch: int = 16
    learn_rate: float = 0.0
    final_rate: float = 0.03
    warmup_steps: int = 20
    weight_decay: float = 0.0
    beta2: float = 0.98
    grad_clip: float = 1.0
    precision: str = "auto"
    checkpoint_every: int = 50
    seed: int = 0
    merge: float = field(default=1.0, metadata={"of the result": True})
    output_kind: str = field(default=BASE, metadata={"of the result": True})
    dtype: str = field(default="auto", metadata={"of the result": True})

    def __post_init__(self) -> None:
        for name, names in (
            ("objective", OBJECTIVES),
            ("train", TRAIN),
            ("output_kind", OUTPUT_KINDS),
            ("precision", PRECISIONS),
            ("dtype", DTYPES),
        ):
            self._check(name, getattr(self, name) in names, f"one of {', '.join(names)}")
        for name in ("tokens", "batch", "micro_batch", "checkpoint_every"):
            value = getattr(self, name)
            self._check(name, is_whole(value) and value >= 1, "a whole number of at least 1")
        for name in ("warmup_steps", "seed"):
            value = getattr(self, name)
            self._check(name, is_whole(value) and value >= 0, "a whole number of at least 0")
        self._check("length", self.length is None or (is_whole(self.length) and self.length >= 4), "at least 4 pieces")
        self._check(
            "mask_share", is_number(self.mask_share) and 0 < self.mask_share < 1, "a number above 0 and below 1"
        )
        for name, high in (("learn_rate", 1), ("final_rate", 1), ("weight_decay", 10), ("merge", 1)):
            value = getattr(self, name)
            self._check(name, is_number(value) and 0 <= value <= high, f"a number from 0 to {high}")
        self._check("beta2", is_number(self.beta2) and 0 <= self.beta2 < 1, "a number from 0 to below 1")
        self._check("grad_clip", is_number(self.grad_clip) and self.grad_clip > 0, "a number above 0")
        self._check("batch", self.batch % self.micro_batch == 0, f"a multiple of micro_batch = {self.micro_batch}")
        object.__setattr__(self, "unmask", self.unmask or ("none" if self.objective == CAUSAL else "all"))
        check_notation(self.unmask)
        object.__setattr__(self, "learn_rate", self.learn_rate or RATES[self.train])
        if self.train == ALL and self.lora is not None:
            raise SettingError('settings of lora are given, but train = "all" has no adapter. Use train = "lora".')
        if self.train == LORA and self.lora is None:
            object.__setattr__(self, "lora", LoraSettings())
        if self.output_kind == ADAPTER and (self.train != LORA or self.merge != 1):
            raise SettingError(
                f'output_kind = "adapter" is not allowed with train = {self.train!r} and merge = {self.merge}: an '
                f'adapter needs train = "lora" and merge = 1.0. Use these, or output_kind = "base".'
            )
        if self.lora is not None and self.lora.use_dora and 0 < self.merge < 1:
            raise SettingError(
                f"merge = {self.merge} is not allowed with lora.use_dora: such an adapter cannot be scaled. Use 0 or 1."
            )

    def _check(self, name: str, good: bool, allowed: str) -> None:
        if not good:
            raise SettingError(f"{name} = {getattr(self, name)!r} is not allowed: it must be {allowed}.")

    def as_sections(self) -> dict[str, dict[str, Any]]:
        """The settings that decide the training, for a checkpoint and the record."""
        decisive = {one.name for one in fields(self) if not one.metadata and one.name != "lora"}
        adaptation = {name: value for name, value in asdict(self).items() if name in decisive}
        return {"adaptation": adaptation, "lora": self.lora.as_block() if self.lora else {}}

    @classmethod
    def read(cls, given: Mapping[str, Any], lora: Mapping[str, Any]) -> "AdaptationSettings":
        """Read settings by name.

        given (Mapping): The settings, except those of the adapter.
        lora (Mapping): The adapter's; empty for none.
        RAISES (SettingError, AdapterError, MaskError): One is unknown or out of range.
        """
        return cls(**given, lora=LoraSettings.read(lora) if lora else None)
