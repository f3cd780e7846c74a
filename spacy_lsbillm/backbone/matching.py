"""Matching the tensors of a checkpoint with those of a model, whatever the checkpoint's names for them.

A checkpoint may hold the model without its head, the text part among others, names that newer versions of transformers
have changed, or (mixtures of experts) tensors that newer versions join.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from ..errors import BaseError
from .config_file import read_json
from .int8_files import head_tensors, is_int8
from .tensor_files import StoredTensor, stored_tensors

try:
    # transformers 5 converts checkpoints that older versions have saved.
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
except ImportError:
    get_model_conversion_mapping = None
RENAMES_FREELY = get_model_conversion_mapping is not None

# The key of config.json that describes how the weights are stored.
QUANTISED = ("quantization_config", "compression_config")
# Prefixes of the language model in multimodal checkpoints, with the causal LM's prefixes, the more specific first; and
# the head of GPT-NeoX, which transformers 5 has renamed.
OTHER_NAMES: tuple[dict[str, str], ...] = (
    {r"^model\.language_model\.": "model."},
    {r"^language_model\.": ""},
    {r"^model\.text_model\.": "model."},
    {r"^text_model\.": ""},
    {r"^thinker\.": ""},
    {r"^lm_head\.": "embed_out."},
)


@dataclass(frozen=True)
class Matched:
    """The tensors of a checkpoint that a model uses.

    tensors (dict): By the model's names, those that it uses unchanged.
    joined (dict): By the checkpoint's names, those that transformers joins into others when it loads them.
    made (set[str]): The model's names for the joined tensors.
    renamed (dict | None): See `other_names`.
    """

    tensors: dict[str, StoredTensor]
    joined: dict[str, StoredTensor]
    made: frozenset[str]
    renamed: dict[str, str] | None

    def written(self, tensor: StoredTensor) -> str:
        """The name under which a tensor is written for this model alone.

        All versions of transformers know the names in the checkpoint, while the model's names differ between versions.
        """
        return _renamed(tensor.name, self.renamed or {})


def matched_tensors(folder: Path, model: PreTrainedModel) -> Matched:
    """Find the stored tensors of a base that its model uses.

    model (PreTrainedModel): Its `skeleton`.
    RAISES (BaseError): The weight files cannot be read.
    """
    stored = stored_tensors(folder)
    needed = model.state_dict()
    renamed = other_names(stored, model)
    names = _names(stored, model, renamed)
    tensors: dict[str, StoredTensor] = {}
    joined: dict[str, StoredTensor] = {}
    made = set()
    for name, (target, converted) in names.items():
        if target not in needed:
            continue
        if converted:
            joined[name] = stored[name]
            made.add(target)
        else:
            tensors[target] = stored[name]
    ordered = {name: tensors[name] for name in needed if name in tensors}
    return Matched(ordered, joined, frozenset(made), renamed)


def other_names(stored: Iterable[str], model: PreTrainedModel) -> dict[str, str] | None:
    """How to change the names in a checkpoint into the model's, as `from_pretrained`'s `key_mapping`.

    None if transformers itself does all that is needed.
    """
    names = list(stored)
    needed = model.state_dict()
    best, most = None, len(set(names) & set(needed))
    for mapping in OTHER_NAMES:
        n_matched = len({_renamed(name, mapping) for name in names} & set(needed))
        if n_matched > most:
            best, most = mapping, n_matched
    return best


def _renamed(name: str, mapping: Mapping[str, str]) -> str:
    for pattern, replacement in mapping.items():
        name = re.sub(pattern, replacement, name, count=1)
    return name


def _names(
    stored: Iterable[str], model: PreTrainedModel, mapping: dict[str, str] | None
) -> dict[str, tuple[str, bool]]:
    """The model's name for each stored name, and whether the tensor is converted."""
    needed = model.state_dict()
    if RENAMES_FREELY:
        transforms = get_model_conversion_mapping(model, mapping)
        renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
        converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
        renamed = {}
        for name in stored:
            target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, needed)
            if name in needed and pattern is None:
                target = name
            renamed[name] = (target, pattern is not None)
        return renamed
    mapping = mapping or getattr(type(model), "_checkpoint_conversion_mapping", None) or {}
    result = {}
    for name in stored:
        target = _renamed(name, mapping)
        if target not in needed:
            # Saved without a head, like the original GPT-2.
            with_prefix = f"{model.base_model_prefix}.{target}"
            target = with_prefix if with_prefix in needed else target
        result[name] = (target, False)
    return result


def check_weights(folder: Path, model: PreTrainedModel, int8: bool = False) -> None:
    """Compare the names and shapes of the stored tensors with those that the model needs, before any is read.

    model (PreTrainedModel): Its `skeleton`.
    int8 (bool): Whether they must be in eight bits (`int8_files`).
    RAISES (BaseError): They are quantised, some are missing and would be initialised at random, or a shape differs.
    """
    if not (int8 and is_int8(folder)):
        _refuse_quantised(folder)
    matched = matched_tensors(folder, model)
    needed = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    left_out = tied_weights(model) | (head_tensors(model) if int8 else set())
    missing = sorted(set(needed) - left_out - set(matched.tensors) - matched.made)
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise BaseError(
            f"the base folder {folder} lacks weights that a {model.config.model_type} model has: {shown}. They would "
            f"be random. Fetch the model again, or save it completely."
        )
    for name, tensor in sorted(matched.tensors.items()):
        if needed[name] != tensor.shape:
            raise BaseError(
                f"the base folder {folder} has {name} in the shape {tensor.shape}, but its config needs "
                f"{needed[name]}. Fetch the model again, with its own config."
            )


def _refuse_quantised(folder: Path) -> None:
    """Refuse weights that are stored quantised.

    RAISES (BaseError): The config says that they are.
    """
    whole = read_json(folder)
    parts = [whole, *(part for part in whole.values() if isinstance(part, dict))]
    said = next((part[key] for part in parts for key in QUANTISED if part.get(key)), None)
    if not isinstance(said, dict):
        return
    method = said.get("quant_method") or "an unnamed method"
    for setting, bits in (("load_in_4bit", "4-bit"), ("load_in_8bit", "8-bit")):
        method += f", {bits}" if said.get(setting) else ""
    raise BaseError(
        f"the weights in the base folder {folder} are stored quantised ({method}). Name the original base: it "
        f'is quantised here while it is loaded, with quantization = "nf4", "fp4" or "int8".'
    )


def tied_weights(model: PreTrainedModel) -> set[str]:
    """The names of tensors that equal others and need not be stored, such as a tied head."""
    return set(getattr(model, "_tied_weights_keys", None) or ()) if model.config.tie_word_embeddings else set()
