"""LoRA adapters through peft: settings, adding them to a base, reading and writing peft's own format.

peft and what it imports, bitsandbytes and torch's compiler, take seconds to import. So the functions here import it
when an adapter is made or read, and no other module does: a pipeline without an adapter needs none of it.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..errors import AdapterError
from ..values import is_flag, is_number, is_whole
from .base import BaseSettings
from .families import find_layers
from .skeleton import making_modules, uninitialised

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

WEIGHTS = "adapter_model.safetensors"
# The adapter is trained in float32, whatever the dtype of the base.
ADAPTER_DTYPES = ("float32", "bfloat16", "float16")
LINEAR = (nn.Linear, Conv1D)


@dataclass(frozen=True)
class LoraSettings:
    """The settings of a LoRA adapter, with peft's names and its usual defaults.

    r (int): Rank.
    alpha (float): Scale of the update: it is multiplied by alpha / r, or with rsLoRA by alpha / sqrt(r).
    dropout (float): Dropout on the adapter's input during training.
    target_modules (str | list[str]): "all-linear" (each linear layer except the output head; in a mixture of experts
        only those of the attention), a list of module names such as ["q_proj", "v_proj"], or a regular expression over
        full names.
    use_rslora (bool): Rank-stabilised scaling (arXiv 2312.03732).
    use_dora (bool): Weight-decomposed adaptation (arXiv 2402.09353).
    """

    r: int = 16
    alpha: float = 32
    dropout: float = 0.05
    target_modules: str | tuple[str, ...] = "all-linear"
    use_rslora: bool = False
    use_dora: bool = False

    @classmethod
    def read(cls, block: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> "LoraSettings":
        """Read the settings from a block of a config.

        defaults (Mapping | None): Values of settings that the block leaves out, in place of the defaults of this class.
        RAISES (AdapterError): It is not a block, has an unknown setting, or a value is out of range.
        """
        if not isinstance(block, Mapping):
            raise AdapterError(f"lora = {block!r} is not allowed: it must be a block of settings, or null.")
        block = {**(defaults or {}), **block}
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(block) - set(names))
        if unknown:
            raise AdapterError(f"lora has no setting {unknown[0]!r}. It has: {', '.join(names)}.")
        targets = block.get("target_modules", cls.target_modules)
        if isinstance(targets, list):
            block = {**block, "target_modules": tuple(targets)}
        return cls(**block)

    def __post_init__(self) -> None:
        targets = self.target_modules
        named = targets if isinstance(targets, tuple | list) else (targets,)
        targets_readable = bool(named) and all(isinstance(target, str) and target for target in named)
        for setting, good, allowed in (
            ("r", is_whole(self.r) and self.r > 0, "a whole number above 0"),
            ("alpha", is_number(self.alpha) and self.alpha > 0, "a number above 0"),
            ("dropout", is_number(self.dropout) and 0 <= self.dropout < 1, "a number from 0 to below 1"),
            ("target_modules", targets_readable, '"all-linear", a list of module names or a regular expression'),
            ("use_rslora", is_flag(self.use_rslora), "true or false"),
            ("use_dora", is_flag(self.use_dora), "true or false"),
        ):
            if not good:
                value = getattr(self, setting)
                shown = list(value) if isinstance(value, tuple) else value
                raise AdapterError(f"lora.{setting} = {shown!r} is not allowed: it must be {allowed}.")

    def as_block(self) -> dict[str, Any]:
        """The settings as a block for a config file."""
        block = asdict(self)
        if not isinstance(self.target_modules, str):
            block["target_modules"] = list(self.target_modules)
        return block

    def to_peft(self, model: Any) -> "LoraConfig":
        """The settings as peft's config for a causal language model."""
        from peft import LoraConfig

        targets = self.target_modules if isinstance(self.target_modules, str) else list(self.target_modules)
        if targets == "all-linear":
            targets = _linear_in_layers(model) or targets
        return LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=targets,
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            # GPT-2 keeps its weights transposed.
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
            task_type="CAUSAL_LM",
        )


def _linear_in_layers(model: Any) -> list[str] | None:
    """The linear layers that "all-linear" stands for where peft would choose others.

    They are those outside of mixtures of experts and inside the decoder. None for models where peft's choice is right.

    In a mixture of experts only the linear layers of the attention are adapted: transformers 4 and 5 store experts in
    different forms, so an adapter on experts could not be loaded by the other version. Modules after the decoder,
    beside the output head, do not influence the states.
    """
    head, prefix = model.get_output_embeddings(), f"{find_layers(model)[0]}."
    mixtures = tuple(f"{name.rpartition('.')[0]}." for name, _ in model.named_modules() if name.endswith(".experts"))
    linear = [name for name, module in model.named_modules() if isinstance(module, LINEAR) and module is not head]
    left_out = {_leaf(name) for name in linear if name.startswith(mixtures) or not name.startswith(prefix)}
    return sorted({_leaf(name) for name in linear} - left_out) if mixtures or left_out else None


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def check_targets(model: nn.Module, settings: LoraSettings) -> None:
    """Check the target modules against a model. The model needs no weights.

    RAISES (AdapterError): A target matches no linear layer.
    """
    if settings.target_modules == "all-linear":
        return
    linear = [name for name, module in model.named_modules() if isinstance(module, LINEAR)]
    known = sorted({_leaf(name) for name in linear})
    if isinstance(settings.target_modules, str):
        try:
            unknown = (
                [] if any(re.fullmatch(settings.target_modules, name) for name in linear) else [settings.target_modules]
            )
        except re.error as error:
            raise AdapterError(
                f"lora.target_modules = {settings.target_modules!r} is not a regular expression: {error}."
            ) from error
    else:
        ends = [f".{name}" for name in linear]
        unknown = [target for target in settings.target_modules if not any(end.endswith(f".{target}") for end in ends)]
    if unknown:
        raise AdapterError(
            f"lora.target_modules names {unknown[0]!r}, but no linear layer of the base has this name. "
            f'The linear layers are: {", ".join(known)}; "all-linear" takes all but the output head.'
        )


def check_dora(settings: LoraSettings, base: BaseSettings, device: torch.device) -> None:
    """Check that peft can compute DoRA over these weights on this device.

    RAISES (AdapterError): It cannot: int8 weights on a CPU.
    """
    if settings.use_dora and base.quantization == "int8" and device.type == "cpu":
        # peft moves the weight to the CPU at each pass, where its scales are lost.
        raise AdapterError(
            'lora.use_dora = True is not allowed with quantization = "int8" on a CPU, where peft loses the scales of '
            'the weights. Use false, quantization = "nf4" or null, or a GPU.'
        )


def add_adapter(model: PreTrainedModel, settings: LoraSettings) -> "PeftModel":
    """Add a new adapter to a base.

    Its update is zero until it is trained. It is in float32, whatever the dtype of the base.
    """
    from peft import get_peft_model

    check_targets(model, settings)
    with making_modules:
        return get_peft_model(model, settings.to_peft(model))


def is_adapted(module: nn.Module) -> bool:
    """Whether a module is one of peft's, which holds a linear layer and its adapter."""
    from peft.tuners.lora import LoraLayer

    return isinstance(module, LoraLayer)


def write_adapter(model: "PeftModel", folder: Path, base: BaseSettings, dtype: str = "float32") -> None:
    """Write the adapter in peft's format, with the keys of the causal-LM class and the name of the base.

    dtype (str): The dtype on disk, one of `ADAPTER_DTYPES`.
    """
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.revision = base.name, base.revision
    if base.depth is not None and not isinstance(config.target_modules, str):
        # So that plain peft, which loads the whole base, does not look for an adapter of a larger module.
        config.layers_to_transform = list(range(base.depth))
    if isinstance(config.target_modules, set):
        # The order of a set of names, and with it the file, would differ between processes.
        config.target_modules = sorted(config.target_modules)
    # Without this peft asks the hub whether the embeddings were resized.
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    if dtype != "float32":
        state = {name: tensor.to(getattr(torch, dtype)) for name, tensor in read_state(folder).items()}
        save_file(state, folder / WEIGHTS, {"format": "pt"})


def read_adapter(model: PreTrainedModel, folder: Path, settings: LoraSettings | None = None) -> "PeftModel":
    """Add a stored adapter to a base, for prediction or further training.

    settings (LoraSettings | None): Settings whose dropout is used in training; None: that of the stored adapter.
    RAISES (AdapterError): It cannot be read, or does not fit the base.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    weights = folder / WEIGHTS
    try:
        config = LoraConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AdapterError(f"the adapter in {folder} cannot be read: {error}. Copy the pipeline again.") from error
    state = read_state(folder, next(model.parameters()).device)
    config.inference_mode = False
    if settings is not None:
        config.lora_dropout = settings.dropout
    # peft would warn if the base is in another folder; the caller compares fingerprints.
    config.base_model_name_or_path = None
    # With peft's low_cpu_mem_usage the adapter would be rounded to the base's dtype.
    with uninitialised():
        adapted = get_peft_model(model, config)
    try:
        result = set_peft_model_state_dict(adapted, state)
    except RuntimeError as error:
        raise AdapterError(f"the adapter {weights} does not fit the base: {error}") from error
    lost = [key for key in result.missing_keys if "lora_" in key] + list(result.unexpected_keys)
    if lost:
        raise AdapterError(f"the adapter {weights} does not fit the base: only one of them has {lost[0]!r}.")
    return adapted


def read_state(folder: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The tensors of a stored adapter, by peft's names.

    RAISES (AdapterError): They cannot be read.
    """
    try:
        return load_file(folder / WEIGHTS, device=str(device))
    except (OSError, ValueError, SafetensorError) as error:
        raise AdapterError(f"the adapter in {folder} cannot be read: {error}. Copy the pipeline again.") from error
