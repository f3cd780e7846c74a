"""A ranking of masks without the full search."""

from dataclasses import dataclass, field
from math import inf, isfinite


@dataclass(frozen=True)
class Prediction:
    """What a predictor says.

    predictor (str): Its name.
    scores (dict[str, float]): Of each mask; the highest is thought to be best. In the order of the masks.
    steps (int): Steps of the optimizer that it took, of all its trainings together.
    seconds (float): That it took.
    by_seed (dict[str, list[float]]): The scores that `scores` are the means of, where there are several seeds.
    """

    predictor: str
    scores: dict[str, float]
    steps: int
    seconds: float
    by_seed: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ranking(self) -> list[str]:
        """The masks, best first; of equal ones the first. One whose score is no number, such as the loss of a training
        that has gone astray, is last."""
        return sorted(self.scores, key=lambda mask: -finite(self.scores[mask]))


def finite(score: float) -> float:
    """A score that can be compared; one that is no finite number is the lowest."""
    return score if isfinite(score) else -inf
