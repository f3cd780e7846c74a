"""Which way to take, in words: for the best score, at half the cost of that, and at the cost of the causal model."""

from dataclasses import dataclass

from .outcome import Outcome
from .pareto import Point, best_within


@dataclass(frozen=True)
class Recommendation:
    """A way to take.

    purpose (str): For what.
    point (Point | None): None where all ways that were trained cost more.
    """

    purpose: str
    point: Point | None


def recommendations(outcome: Outcome) -> list[Recommendation]:
    """Three, by the development set; none where the search has told no prices. Costs are those of prediction.

    A way with fewer seeds than the chosen one is taken where there is no other.
    """
    points = outcome.points
    if not points:
        return []
    best = next(point for point in points if point.way == outcome.chosen)

    def within(limit: float) -> Point | None:
        # The one that the strategy has chosen is the best there is.
        return best if best.cost <= limit else best_within(points, limit, best.seeds)

    return [
        Recommendation("For the best score", best),
        Recommendation("For half the cost of that", within(best.cost / 2)),
        Recommendation("For the cost of the causal model", within(1.0)),
    ]
