"""Which ways to take at which cost: those that no other beats in both score and cost, and the best up to a limit."""

from collections.abc import Sequence
from dataclasses import dataclass

# Costs are quotients.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Point:
    """A way between cost and score.

    way (str): Which.
    cost (float): Of prediction, relative to the causal model.
    score (float): On the development set, mean over seeds.
    seeds (int): How many.
    """

    way: str
    cost: float
    score: float
    seeds: int = 1


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other point beats: none is at most as dear and at least as good, and one of the two really. By
    cost."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.score)):
        if not kept or point.score > kept[-1].score or (point.cost, point.score) == (kept[-1].cost, kept[-1].score):
            kept.append(point)
    return kept


def best_within(points: Sequence[Point], limit: float, seeds: int = 1) -> Point | None:
    """The best that costs no more than a limit; of equal ones the cheapest. One with fewer than so many seeds counts
    where there is no other.

    RETURNS (Point | None): None where all cost more.
    """
    within = [point for point in points if point.cost <= limit + ROUNDING]
    settled = [point for point in within if point.seeds >= seeds] or within
    return max(settled, key=lambda point: (point.score, -point.cost), default=None)
