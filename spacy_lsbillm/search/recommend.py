"""Which way to use: for the best score, for half the cost of that, and for the cost of the causal model."""

from dataclasses import dataclass

from .outcome import Outcome
from .pareto import Point, best_within


@dataclass(frozen=True)
class Recommendation:
    """A recommended way.

    purpose (str): What the way is recommended for, as in the report.
    point (Point | None): The way with its cost and score; None if all trained ways cost more.
    """

    purpose: str
    point: Point | None


def recommendations(outcome: Outcome) -> list[Recommendation]:
    """Three recommendations by the scores on the development set; none if the search computed no prices.

    Costs are those of prediction.

    A way with fewer seeds than the chosen one is recommended only if there is no other.
    """
    points = outcome.points
    if not points:
        return []
    best = next(point for point in points if point.way == outcome.chosen)

    def within(limit: float) -> Point | None:
        # The way that the strategy has chosen counts as the best, whatever other ways scored with fewer seeds.
        return best if best.cost <= limit else best_within(points, limit, best.seeds)

    return [
        Recommendation("For the best score", best),
        Recommendation("For half the cost of that", within(best.cost / 2)),
        Recommendation("For the cost of the causal model", within(1.0)),
    ]
