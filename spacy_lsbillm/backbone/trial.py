"""Trying a model on a small random copy: which of its states move, and how far, when its input changes."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from .base import BaseSettings
from .base_config import DTYPE_SETTING
from .families import Family, find_layers, find_norm, layers_of
from .mask import MaskPlan
from .model import Backbone, BackboneSettings
from .origin import Origin
from .sharing import SharedBase
from .shrink import VOCABULARY
from .skeleton import making_modules
from .unmask import unmask_layers

# Differences between states below this fraction of the largest state are rounding, those above are not.
TOLERANCE = 1e-4
# The length of the rows of pieces.
LENGTH = 12
# The sliding window, and the changed position, in the check of windows.
NARROW, MIDDLE = 4, 6


def random_model(config: Any, attention: str) -> PreTrainedModel:
    """Create a model with weights large enough for its layers to matter; the usual ones leave them near identity."""
    torch.manual_seed(0)
    with making_modules:
        # A model writes its attention implementation into the config that it is given.
        model = AutoModelForCausalLM.from_config(
            copy.deepcopy(config), attn_implementation=attention, **{DTYPE_SETTING: torch.float32}
        )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.nan_to_num_(0.0, 0.0, 0.0)
                parameter.mul_(5 if parameter.ndim > 1 else 1)
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval().requires_grad_(False)


def anatomy(model: PreTrainedModel) -> Family:
    """Find the structure of a causal language model by running it."""
    path, layers = find_layers(model)
    decoder = model.get_submodule(path)
    outputs: dict[str, Any] = {}
    hooks = [
        child.register_forward_hook(lambda _module, _args, output, name=name: outputs.__setitem__(name, output))
        for name, child in decoder.named_children()
    ]
    with torch.inference_mode():
        last = decoder(input_ids=trial_pieces(1), use_cache=False).last_hidden_state
    for hook in hooks:
        hook.remove()
    return Family(path, layers, find_norm(layers, outputs, last))


def bare_backbone(model: PreTrainedModel, family: Family, name: str) -> Backbone:
    """Create a backbone over a model, without adapter or tokenizer, with all layers causal."""
    base = BaseSettings(name, attention=family.attentions[0])
    shared = SharedBase(model)
    tree = shared.tree(shared.layers, family)
    plan = MaskPlan.parse("none", shared.layers)
    unmask_layers(layers_of(tree.get_submodule(family.decoder), family), plan)
    # The checks do not need a tokenizer.
    no_tokenizer: Any = PreTrainedTokenizerFast
    return Backbone(
        tree, shared, None, no_tokenizer, plan, BackboneSettings(base, "none"), family, Path(), Origin(""), ""
    )


def trial_pieces(rows: int) -> Tensor:
    """Rows of random pieces, the same at each call."""
    return torch.randint(2, VOCABULARY, (rows, LENGTH), generator=torch.Generator().manual_seed(1))


def trial_batch() -> tuple[Tensor, Tensor]:
    """Three rows of pieces; the second has some padding, the third is almost all padding."""
    ids = trial_pieces(3)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    mask[2, 1:] = 0
    return ids, mask


def reach_of(backbone: Backbone, layer: int) -> list[int]:
    """The positions of one layer's output that change when a middle piece changes.

    The layer's input changes only at that position, as it does in the first layer.
    """
    outputs: list[Tensor] = []
    decoder = backbone.causal_lm.get_submodule(backbone.family.decoder)
    chosen = layers_of(decoder, backbone.family)[layer]

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        # The same input, whatever the layers below compute.
        states = args[0] if args else kwargs["hidden_states"]
        states = torch.randn(states.shape, generator=torch.Generator().manual_seed(3))
        if outputs:
            states[..., MIDDLE, :] += 1.0
        return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    hooks = [chosen.register_forward_pre_hook(hook, with_kwargs=True), chosen.register_forward_hook(keep)]
    ids = trial_pieces(1)
    for _ in range(2):
        states_of(backbone, ids, torch.ones_like(ids))
    for handle in hooks:
        handle.remove()
    moved = (outputs[0] - outputs[1]).abs().amax(-1).reshape(-1, LENGTH).amax(0)
    return [int(place) for place in (moved > TOLERANCE).nonzero().flatten()]


def moved_by(backbone: Backbone, unmask: str) -> tuple[float, float]:
    """How far the first position moves under a mask when the last piece changes.

    RETURNS (tuple[float, float]): Without padding, and the minimum over rows of which some are padded.
    """
    backbone.use_mask(unmask)
    distances = []
    for padded in (False, True):
        ids, mask = trial_batch()
        if not padded:
            ids, mask = ids[:1], mask[:1]
        changed = ids.clone()
        last = mask.sum(1) - 1
        rows = [row for row in range(len(ids)) if last[row] > 0]
        for row in rows:
            changed[row, last[row]] = (changed[row, last[row]] + 11) % VOCABULARY
        # As one batch, which is faster.
        one, other = states_of(backbone, torch.cat([ids, changed]), torch.cat([mask, mask])).chunk(2)
        distances.append(min(distance(one[row, 0], other[row, 0]) for row in rows))
    return distances[0], distances[1]


def states_of(backbone: Backbone, ids: Tensor, mask: Tensor, positions: Tensor | None = None) -> Tensor:
    """The states of a batch, shape (rows, length, width)."""
    with torch.inference_mode():
        return backbone.states(ids, mask, positions)


def distance(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest state."""
    largest = max(float(one.abs().max()), float(other.abs().max()), 1e-6)
    return float((one - other).abs().max()) / largest
