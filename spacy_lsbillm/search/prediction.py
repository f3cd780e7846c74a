"""The result of a predictor: a ranking of masks without the full search."""

from dataclasses import dataclass, field
from math import inf, isfinite


@dataclass(frozen=True)
class Prediction:
    """A ranking of masks, and what it cost.

    predictor (str): The name of the predictor.
    scores (dict[str, float]): The score of each mask, in the order of the masks; the mask with the highest is predicted
        to be best.
    steps (int): The optimizer steps of all trainings together.
    seconds (float): The time that the prediction took.
    by_seed (dict[str, list[float]]): The scores of each mask with each seed, whose means are `scores`; empty for a
        predictor without seeds.
    """

    predictor: str
    scores: dict[str, float]
    steps: int
    seconds: float
    by_seed: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ranking(self) -> list[str]:
        """The masks, best first; equal ones in their given order.

        A mask whose score is not a finite number, such as the loss of a diverged training, comes last.
        """
        return sorted(self.scores, key=lambda mask: -finite(self.scores[mask]))


def finite(score: float) -> float:
    """The score, or minus infinity if it is not a finite number, so that scores can be compared."""
    return score if isfinite(score) else -inf
