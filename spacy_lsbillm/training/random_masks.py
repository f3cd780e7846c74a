"""Training under many masks at once: another mask before each update."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from spacy.language import Language

from ..backbone import check_notation
from ..errors import SettingError
from ..pipeline.billm_transformer import BiLLMTransformer


def create_random_masks_v1(
    masks: Sequence[str], seed: int = 0, component: str = "transformer"
) -> Callable[[Language, dict[str, Any]], None]:
    """Create a callback for `training.before_update` that uses each mask equally often.

    One set of weights is trained under all masks, so that masks can be compared without a training for each (one path
    sampled per step: Guo et al., 2020, "Single Path One-Shot Neural Architecture Search with Uniform Sampling"; all of
    them in each round, in random order: Chu et al., 2021, "FairNAS").

    masks (Sequence[str]): In mask notation.
    seed (int): Seed of their order.
    component (str): The name of the billm_transformer.
    RAISES (ValueError): There are no masks, or one cannot be read.
    """
    if not masks:
        raise SettingError("random_masks: masks names none. Name those to train under, such as ['none', 'all'].")
    for mask in masks:
        check_notation(mask, "a mask of random_masks")
    return partial(_use_next_mask, masks, seed, component)


def _use_next_mask(masks: Sequence[str], seed: int, component: str, nlp: Language, progress: dict[str, Any]) -> None:
    pipe = nlp.get_pipe(component) if component in nlp.pipe_names else None
    if not isinstance(pipe, BiLLMTransformer):
        raise SettingError(
            f"random_masks: {component!r} is not a billm_transformer of this pipeline, which has: "
            f"{', '.join(nlp.pipe_names)}."
        )
    # Derived from the step alone: a resumed training uses the masks that it would have used.
    number, place = divmod(progress["step"], len(masks))
    pipe.use_mask(masks[np.random.default_rng([seed, number]).permutation(len(masks))[place]])
