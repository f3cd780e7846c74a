"""A base with one linear head, written as one of transformers' own classifiers.

Such a classifier, for example `LlamaForTokenClassification`, runs without this project.

From 5.2 on, transformers removes the causal mask from all layers of a decoder whose config says `is_causal = false`.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from ..errors import BaseError
from .base_config import DTYPE_SETTING
from .families import Family
from .merge import DTYPES, LICENCES, copy_beside, encoded, merged_model
from .shrink import WINDOW_NAMES
from .skeleton import skeleton, uninitialised
from .storage import StoredParts
from .tensor_files import NewTensor, write_tensors

TASKS = TOKENS, TEXTS = "token-classification", "text-classification"
MAPPINGS = {TOKENS: MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING, TEXTS: MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING}
AUTO_CLASSES = {TOKENS: AutoModelForTokenClassification, TEXTS: AutoModelForSequenceClassification}
SUFFIXES = {TOKENS: "ForTokenClassification", TEXTS: "ForSequenceClassification"}
# The first version that removes the mask if the config says so.
FIRST_VERSION = (5, 2)
UNMASKS = tuple(int(part) for part in transformers.__version__.split(".")[:2]) >= FIRST_VERSION
# The largest acceptable error when a head's bias is added to the norm's bias, relative to its largest number.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Classifier:
    """One of transformers' classifiers for a config.

    task (str): One of `TASKS`.
    architecture (str): Name of the class.
    head (str): Name of the module that is the head.
    bias (bool): Whether the head has a bias.
    dropped (frozenset[str]): Tensors of the causal language model that this class lacks: its output head.
    """

    task: str
    architecture: str
    head: str
    bias: bool
    dropped: frozenset[str]


@dataclass(frozen=True)
class Head:
    """What the head must compute: states times weights, plus a bias.

    weight (Tensor): Shape (labels, width), float32.
    bias (Tensor): Shape (labels,), float32.
    labels (tuple[str, ...]): Their names.
    problem (str | None): transformers' `problem_type`, for texts.
    shift_counts (bool): Whether adding the same number to all scores of a text changes the result. With softmax it does
        not.
    """

    weight: Tensor
    bias: Tensor
    labels: tuple[str, ...]
    problem: str | None = None
    shift_counts: bool = True


def find_classifier(config: Any, task: str, name: str) -> Classifier:
    """Find the class for a base, and its head, on the meta device.

    config (PretrainedConfig): The base's.
    task (str): One of `TASKS`.
    name (str): The base's, for messages.
    RAISES (BaseError): transformers has none for this family, or its head is more than one linear layer.
    """
    mapping = MAPPINGS[task]
    if type(config) not in mapping:
        raise BaseError(
            f"transformers {transformers.__version__} has no class …{SUFFIXES[task]} for {config.model_type!r}, the "
            f"family of {name!r}, so the head cannot be exported."
        )
    classifier = empty_classifier(config, task)
    causal, own = skeleton(config).state_dict(), classifier.state_dict()
    new = sorted(own.keys() - causal.keys())
    heads = {key.rpartition(".")[0] for key in new}
    if len(heads) != 1 or not isinstance(classifier.get_submodule(next(iter(heads))), nn.Linear):
        raise BaseError(
            f"the head of {type(classifier).__name__} is not one linear layer over the states, as ours is, but has "
            f"{', '.join(new)}, which would change our scores."
        )
    head = heads.pop()
    dropped = frozenset(causal.keys() - own.keys())
    return Classifier(task, type(classifier).__name__, head, f"{head}.bias" in own, dropped)


def empty_classifier(config: Any, task: str) -> PreTrainedModel:
    """Create a classifier without weights (on the meta device)."""
    with torch.device("meta"), uninitialised():
        return AUTO_CLASSES[task].from_config(copy.deepcopy(config))


def classifier_config(
    config: Any, architecture: str, labels: Sequence[str], both_ways: bool, pad: int | None, problem: str | None = None
) -> Any:
    """The config of a classifier, derived from that of its base.

    both_ways (bool): Whether all layers are unmasked; else none is.
    pad (int | None): The id of the padding piece.
    """
    made = copy.deepcopy(config)
    made.architectures = [architecture]
    made.id2label = dict(enumerate(labels))
    made.label2id = {label: number for number, label in made.id2label.items()}
    made.problem_type = problem
    made.pad_token_id = pad
    made.use_cache = False
    if both_ways:
        made.is_causal = False
        for key in WINDOW_NAMES:
            # A causal window of n reaches n - 1 pieces back; transformers lets an unmasked one reach n to each side,
            # while here it reaches n - 1.
            if isinstance(getattr(made, key, None), int) and getattr(made, key) > 1:
                setattr(made, key, getattr(made, key) - 1)
    return made


def write_classifier(
    target: Path,
    parts: StoredParts,
    classifier: Classifier,
    head: Head,
    family: Family,
    both_ways: bool,
    pad: int | None,
) -> None:
    """Write config and weights into an existing, empty folder: the base with its adapter folded in, and the head.

    family (Family): The family of the base.
    both_ways (bool): Whether all layers are unmasked; else none is.
    pad (int | None): The id of the padding piece.
    RAISES (BaseError, AdapterError): The base or the adapter cannot be read, or the head has a bias that the class
        cannot represent.
    """
    merged = merged_model(parts.folder, parts.settings, parts.adapter)
    config = classifier_config(merged.config, classifier.architecture, head.labels, both_ways, pad, head.problem)
    if parts.settings.dtype != "auto":
        setattr(config, DTYPE_SETTING, getattr(torch, parts.settings.dtype))
    dropped = {merged.names[name] for name in classifier.dropped if name in merged.names}
    names = {written: own for own, written in merged.names.items()}
    prefix = merged.model.base_model_prefix
    tensors: dict[str, NewTensor] = {}
    for written, tensor in merged.tensors.items():
        # The names of a base saved without a head lack the prefix, and then no head may be beside them.
        own = names.get(written, written)
        if written not in dropped:
            tensors[own if own == f"{prefix}.{written}" else written] = tensor
    tensors[f"{classifier.head}.weight"] = encoded(head.weight)
    if classifier.bias:
        tensors[f"{classifier.head}.bias"] = encoded(head.bias)
    elif (bias := _bias_left(head)) is not None:
        place = norm_bias(merged.model, family)
        if place is None:
            raise BaseError(
                f"the head of {classifier.architecture} has no bias, but ours has one. It could be added to the bias "
                f"of the last norm, but the norms of {merged.config.model_type!r} have none, so no such folder could "
                f"predict the same classes."
            )
        last = place if place in tensors else merged.names[place]
        tensors[last] = _with_bias(tensors[last], head.weight, bias, classifier.architecture)
    config.save_pretrained(target)
    copy_beside(parts.folder, target, LICENCES)
    write_tensors(target, tensors)


def norm_bias(model: PreTrainedModel, family: Family) -> str | None:
    """The model's name for the bias of the norm after the last layer; None if it has none, like an RMSNorm."""
    if family.norm is None:
        return None
    place = f"{family.decoder}.{family.norm}.bias"
    return place if place in model.state_dict() else None


def _bias_left(head: Head) -> Tensor | None:
    bias = head.bias if head.shift_counts else head.bias - head.bias.mean()
    return bias if bool(bias.abs().max() > 0) else None


def _with_bias(tensor: NewTensor, weight: Tensor, bias: Tensor, architecture: str) -> NewTensor:
    """The bias of the last norm with the head's bias added.

    It is the smallest shift of all states that raises each score by its bias.

    RAISES (BaseError): There is none, or it would lose precision.
    """
    shift = torch.linalg.lstsq(weight.double(), bias.double()[:, None], driver="gelsd").solution[:, 0]
    lost = float((weight.double() @ shift - bias.double()).abs().max() / bias.abs().max())
    if lost > ROUNDING or tensor.dtype not in ("F32", "F64"):
        raise BaseError(
            f"the head of {architecture} has no bias, and ours cannot be added to the bias of the last norm without an "
            f'error (rounding {lost:.0e}, weights in {tensor.dtype}). It can with dtype = "float32" and classes that '
            "have "
            f"different weights."
        )
    values = torch.frombuffer(bytearray(b"".join(tensor.chunks())), dtype=DTYPES[tensor.dtype])
    return replace(encoded((values.double() + shift).to(values.dtype)), shape=tensor.shape)
