"""The settings of the shim, which are those of `spacy-lsbillm.BiLLMModel.v1` but for the cutting into windows."""

from dataclasses import dataclass

from ..alignment import check_white_space
from ..backbone import ADAPTER_DTYPES, INT8, STORED_AS, BackboneSettings, check_fold, unmasks
from ..errors import SettingError
from ..values import check_choice, is_flag, is_number, is_whole
from .adapter_optimizer import CHOICES
from .base_device import check_device
from .state_pooling import OUTPUTS, TOKENS


@dataclass(frozen=True)
class ShimSettings:
    """What a backbone consists of, and how it is trained and stored. Values are checked on creation.

    backbone (BackboneSettings): The base, the unmasked layers and the adapter.
    store_base (str): "reference", "copy" or "merged"; or "int8" for a pipeline written by `lsbillm quantize`.
    learn_rate_scale (float): The adapter's learning rate relative to that of the optimizer, which the heads use
        unchanged.
    heads_first (int): Number of updates at the beginning that change only the heads.
    unmask_warmup (int): Number of updates of the adapter over which unmasked layers are gradually shown their right
        side; 0: they see all of it from the beginning.
    output (str): "tokens" or "pieces": which of them get one vector each.
    adapter_optimizer (str | None): The optimizer for the adapter, see `AdapterOptimizer`; None: thinc's.
    store_adapter (str): The adapter's dtype on disk.
    fold_adapter (str): "auto", "always" or "never": whether prediction uses a second copy of the weights that includes
        the adapter.
    add_bos_token (bool | None): Whether each window begins with the tokenizer's start token; None: the tokenizer's own
        default.
    white_space (str | None): How white space is passed to the tokenizer, see `alignment.white_space.show`; None: the
        default, or for a trained backbone what it was trained with.
    device (str | None): "cuda", "mps" or "cpu": where the base computes, whatever spaCy uses; None: spaCy's device.
    """

    backbone: BackboneSettings
    store_base: str = "reference"
    learn_rate_scale: float = 1.0
    heads_first: int = 0
    unmask_warmup: int = 0
    output: str = TOKENS
    adapter_optimizer: str | None = None
    store_adapter: str = "float32"
    fold_adapter: str = "auto"
    add_bos_token: bool | None = None
    white_space: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        check_device(self.device)
        check_choice("store_base", self.store_base, STORED_AS)
        if self.store_base == INT8 and self.backbone.base.quantization != INT8:
            raise SettingError(
                f'store_base = "int8" needs quantization = "int8", not {self.backbone.base.quantization!r}: the weights'
                f" were rounded, and the original ones are not stored."
            )
        check_fold(self.fold_adapter, self.backbone.base.quantization)
        if not (is_number(self.learn_rate_scale) and self.learn_rate_scale > 0):
            raise SettingError(
                f"learn_rate_scale = {self.learn_rate_scale!r} is not allowed: it must be a number above 0."
            )
        check_choice("output", self.output, OUTPUTS)
        check_choice("store_adapter", self.store_adapter, ADAPTER_DTYPES)
        check_choice("adapter_optimizer", self.adapter_optimizer, CHOICES)
        if not (is_whole(self.heads_first) and self.heads_first >= 0):
            raise SettingError(
                f"heads_first = {self.heads_first!r} is not allowed: it must be a number of updates, 0 or above."
            )
        if not (is_whole(self.unmask_warmup) and self.unmask_warmup >= 0):
            raise SettingError(
                f"unmask_warmup = {self.unmask_warmup!r} is not allowed: it must be a number of updates, 0 or above."
            )
        if self.unmask_warmup and not unmasks(self.backbone.unmask):
            raise SettingError(
                f"unmask_warmup = {self.unmask_warmup} with unmask = {self.backbone.unmask!r}: there is no layer whose "
                f'mask could be removed. Use unmask_warmup = 0, or unmask layers, with "all" for example.'
            )
        if self.add_bos_token is not None and not is_flag(self.add_bos_token):
            raise SettingError(f"add_bos_token = {self.add_bos_token!r} is not allowed: use true, false or null.")
        check_white_space(self.white_space)
