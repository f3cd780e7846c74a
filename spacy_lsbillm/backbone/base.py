"""The settings of a base."""

from dataclasses import dataclass

from ..errors import SettingError
from ..values import check_choice, is_whole
from .families import ATTENTIONS, AUTO

DTYPES = ("float32", "bfloat16", "float16", "auto")
QUANTIZATIONS = (None, "nf4", "fp4", "int8")


@dataclass(frozen=True)
class BaseSettings:
    """Which base to load, and in what form.

    name (str): A folder, or a hub id.
    revision (str | None): The hub revision.
    dtype (str): Dtype of weights and arithmetic; "auto" keeps that of the files.
    quantization (str | None): None, "nf4" or "fp4" (4-bit) or "int8", through bitsandbytes. For weights that are
        stored as int8, "int8" means the layers of module `int8`.
    attention (str): "sdpa" or "eager"; "auto" is the best one that computes what the model was trained with.
    depth (int | None): Use only this many layers, counted from the input; None for all.
    auto_dtype (str | None): What the dtype "auto" stands for; None: what transformers derives from the base's files.
    """

    name: str
    revision: str | None = None
    dtype: str = "float32"
    quantization: str | None = None
    attention: str = AUTO
    depth: int | None = None
    auto_dtype: str | None = None

    def __post_init__(self) -> None:
        for setting, value, allowed in (
            ("dtype", self.dtype, DTYPES),
            ("quantization", self.quantization, QUANTIZATIONS),
            ("attention", self.attention, (AUTO, *ATTENTIONS)),
        ):
            check_choice(setting, value, allowed)
        if not isinstance(self.name, str) or not self.name:
            raise SettingError(f"name = {self.name!r} must be the folder or the hub id of a base model.")
        if self.revision is not None and not isinstance(self.revision, str):
            raise SettingError(f"revision = {self.revision!r} must be the name of a hub revision, or null.")
        if self.depth is not None and not (is_whole(self.depth) and self.depth >= 1):
            raise SettingError(f"depth = {self.depth!r} is not allowed: it must be a number of layers, or null.")
