"""Checking that transformers unmasks a classifier as this package does, on a small random copy of the base's config.

This is done before any weights are read.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BaseError
from .classifier import AUTO_CLASSES, Classifier, classifier_config
from .families import Family
from .quiet import quiet
from .shrink import WINDOW, shrunken
from .skeleton import making_modules
from .trial import NARROW, TOLERANCE, bare_backbone, distance, random_model, trial_batch

LABELS = ("one", "two", "three")
# An id that the tried texts do not contain. Classifiers of texts require one, even if the base has none.
PAD = 0


def check_classifier(config: Any, classifier: Classifier, family: Family, both_ways: bool, name: str) -> float:
    """Compare the states that the head receives with those of a backbone.

    They are compared with and without padding, in windows that hide nothing and in narrow ones.

    config (PretrainedConfig): The base's.
    both_ways (bool): Whether all layers are unmasked; otherwise none is.
    name (str): The base's, for messages.
    RETURNS (float): The largest difference, relative to the largest state.
    RAISES (BaseError): They differ.
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
            f"with {'all layers' if both_ways else 'no layer'} unmasked, {classifier.architecture} of transformers "
            f"does not compute the same for {name!r} as this package: on a small copy, states differ by "
            f"{largest:.0%} of the largest one. An exported folder would give other results."
        )
    return largest


def states_of_head(model: nn.Module, head: str, ids: Tensor, mask: Tensor) -> Tensor:
    """The states that a classifier's head receives, shape (rows, length, width).

    head (str): Name of the head's module.
    """
    states: list[Tensor] = []
    hook = model.get_submodule(head).register_forward_pre_hook(lambda _module, args: states.append(args[0]))
    try:
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=mask)
    finally:
        hook.remove()
    return states[0]
