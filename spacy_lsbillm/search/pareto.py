"""The trade-off between score and cost: the ways that no other way beats in both, and the best way up to a cost."""

from collections.abc import Sequence
from dataclasses import dataclass

# Tolerance of costs, which are quotients.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Point:
    """The cost and the score of a way.

    way (str): The way.
    cost (float): The cost of prediction, relative to the causal model.
    score (float): The score on the development set, mean over seeds.
    seeds (int): The number of seeds.
    """

    way: str
    cost: float
    score: float
    seeds: int = 1


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The Pareto front, in order of cost.

    It has the points for which no other point is at most as expensive and at least as good, and better in one of the
    two.
    """
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.score)):
        if not kept or point.score > kept[-1].score or (point.cost, point.score) == (kept[-1].cost, kept[-1].score):
            kept.append(point)
    return kept


def best_within(points: Sequence[Point], limit: float, seeds: int = 1) -> Point | None:
    """The best point up to a cost; the cheapest of equally good ones.

    limit (float): The maximum cost.
    seeds (int): The number of seeds that a point should have; points with fewer are taken only if there is no other.
    RETURNS (Point | None): The point; None if all cost more.
    """
    within = [point for point in points if point.cost <= limit + ROUNDING]
    settled = [point for point in within if point.seeds >= seeds] or within
    return max(settled, key=lambda point: (point.score, -point.cost), default=None)
