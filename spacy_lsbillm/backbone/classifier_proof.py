"""Whether transformers takes the mask off a classifier as it is taken off here: tried on a small random copy of the
base's config, before any weights are read."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BaseError
from .base import making_modules
from .classifier import AUTO_CLASSES, Classifier, classifier_config
from .families import Family
from .proof import NARROW, TOLERANCE, bare_backbone, distance, random_model, trial_batch
from .quiet import quiet
from .shrink import WINDOW, shrunken

LABELS = ("one", "two", "three")
# No piece of the texts that are tried. Classes for texts want to know it, whatever the base has.
PAD = 0


def check_classifier(config: Any, classifier: Classifier, family: Family, both_ways: bool, name: str) -> float:
    """Compare the states that the head gets with those of a backbone, with padding and without, in windows that hide
    nothing and in narrow ones.

    config (PretrainedConfig): The base's.
    both_ways (bool): Whether all layers are unmasked; else none is.
    name (str): The base's, for messages.
    RETURNS (float): The largest difference, as a share of the largest state.
    RAISES (BaseError): They are others.
    """
    largest = 0.0
    with torch.random.fork_rng(devices=[]), quiet():
        for window in (WINDOW, NARROW):
            small = shrunken(config, name, window=window)
            for attention in family.attentions:
                causal = random_model(small, attention)
                backbone = bare_backbone(causal, replace(family, attentions=(attention,)), name)
                backbone.use_mask("all" if both_ways else "none")
                made = classifier_config(small, classifier.architecture, LABELS, both_ways, PAD)
                with making_modules:
                    model = AUTO_CLASSES[classifier.task].from_config(made, attn_implementation=attention)
                model.load_state_dict(causal.state_dict(), strict=False)
                model.eval().float()
                ids, mask = trial_batch()
                for rows in (slice(None), slice(0, 1)):
                    given = states_of_head(model, classifier.head, ids[rows], mask[rows])
                    with torch.inference_mode():
                        expected = backbone.states(ids[rows], mask[rows])
                    real = mask[rows].bool()
                    largest = max(largest, distance(given[real], expected[real]))
    if largest > TOLERANCE:
        raise BaseError(
            f"{classifier.architecture} of transformers does not see what {name!r} sees here with "
            f"{'all layers' if both_ways else 'no layer'} unmasked: on a small copy of it, states differ by "
            f"{largest:.0%} of the largest one. A folder for it would give other results."
        )
    return largest


def states_of_head(model: nn.Module, head: str, ids: Tensor, mask: Tensor) -> Tensor:
    """What a classifier's head gets, shape (rows, length, width).

    head (str): The module.
    """
    found: list[Tensor] = []
    hook = model.get_submodule(head).register_forward_pre_hook(lambda _module, args: found.append(args[0]))
    try:
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=mask)
    finally:
        hook.remove()
    return found[0]
