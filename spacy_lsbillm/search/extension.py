"""Does it help to unmask more layers towards the output? The paired test of Dukić and Šnajder (2024).

Their pairs are two masks, the second of which extends the first to the right in the notation of bits: both are the same
up to the last unmasked layer of the first, which has at least one, and the second unmasks at least one more above it.
1000 is extended by 1001, 1010, 1011 and the four masks that begin with 11. Nothing extends the all-causal mask, as it
has no last unmasked layer. The 16 masks of four groups give 17 pairs.

The pairs, the means over seeds, and the t-test at a level of 1% are taken from the notebook that the authors published
with the paper (Layers_Unlocking_Significance_Testing.ipynb in github.com/dd1497/llm-unmasking). The notebook compares
the bits of four groups; this module compares the layers, which gives the same pairs and allows any notation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import ttest_rel  # type: ignore[import-untyped]

from ..backbone import MaskPlan

LEVEL = 0.01
PERMUTATIONS = 10_000


@dataclass(frozen=True)
class ExtensionPair:
    """A mask and another one that extends it.

    before (str), after (str): The two masks, in mask notation.
    gain (float): The mean score of the second minus that of the first.
    """

    before: str
    after: str
    gain: float


@dataclass(frozen=True)
class Extension:
    """The result of the paired test.

    pairs (list[ExtensionPair]): All pairs.
    mean (float): The mean of their gains.
    p (float): The p-value of a one-sided paired t-test over pairs of mean scores, as in the paper. Pairs share masks,
        so they are not independent, and this value is too small.
    p_permuted (float): The p-value of a permutation test, which does not have that fault: how often the mean gain is as
        large when each seed's scores are assigned to the masks at random (10,000 times). Its null hypothesis is that
        masks make no difference.
    """

    pairs: list[ExtensionPair]
    mean: float
    p: float
    p_permuted: float


def pairs_of(masks: Sequence[str], n_layers: int) -> list[tuple[str, str]]:
    """All pairs of a mask and one that extends it to the right, in the order of the masks."""
    layers = {mask: MaskPlan.parse(mask, n_layers).unmasked for mask in masks}
    return [(one, other) for one in masks for other in masks if _extends(layers[one], layers[other])]


def _extends(before: tuple[bool, ...], after: tuple[bool, ...]) -> bool:
    if not any(before):
        return False
    end = len(before) - before[::-1].index(True)
    return after[:end] == before[:end] and any(after[end:])


def extension_test(scores: Mapping[str, Sequence[float]], n_layers: int, seed: int = 0) -> Extension | None:
    """Test whether it helps to extend masks to the right.

    scores (Mapping): The scores of each mask, one per seed; the same seeds for all masks.
    seed (int): The seed of the permutations.
    RETURNS (Extension | None): The result; None with fewer than two pairs, which cannot be tested.
    """
    # The same layers under several names, such as "all" and "bits:1111", count once.
    of_layers = {MaskPlan.parse(mask, n_layers).unmasked: mask for mask in reversed(list(scores))}
    pairs = pairs_of([mask for mask in scores if mask in of_layers.values()], n_layers)
    if len(pairs) < 2:
        return None
    masks = sorted({mask for pair in pairs for mask in pair})
    before, after = ([masks.index(pair[side]) for pair in pairs] for side in (0, 1))
    table = np.array([scores[mask] for mask in masks], dtype="float64")
    means = table.mean(axis=1)
    gains = means[after] - means[before]
    with np.errstate(divide="ignore", invalid="ignore"):
        p = float(ttest_rel(means[before], means[after], alternative="less").pvalue)
    permuted = np.random.default_rng(seed).permuted(np.broadcast_to(table, (PERMUTATIONS, *table.shape)), axis=1)
    permuted_means = permuted.mean(axis=2)
    by_chance = (permuted_means[:, after] - permuted_means[:, before]).mean(axis=1)
    # A tolerance, since sums in another order differ in their last digits.
    as_large = int((by_chance >= gains.mean() - 1e-12).sum())
    return Extension(
        [ExtensionPair(*pair, float(gain)) for pair, gain in zip(pairs, gains, strict=True)],
        float(gains.mean()),
        # The test gives NaN if no pair differs.
        p if np.isfinite(p) else 1.0,
        (1 + as_large) / (1 + PERMUTATIONS),
    )
