"""A plot of the ways of a search, score against cost."""

from typing import Any

from ..pages import pyplot, svg
from .colours import BIDIRECTIONAL, CHOSEN
from .outcome import Outcome
from .pareto import Point, pareto_front
from .ways import display_name

# Height of a line of text in inches, and the number of points up to which all are named; of more points, only those on
# the front, the chosen one and the causal model.
LINE, MOST_NAMES = 0.21, 24
OTHER = "#777777"


def cost_picture(outcome: Outcome, causal: str | None) -> str:
    """Plot the development score of each way against its cost.

    There is one dot per way, larger if the way was trained with all seeds, and a line through the ways that no other
    way beats in both. Names stand beside the plot, where there is room, each with a line to its dot.

    causal (str | None): The name of the causal model among the ways; None if it is not one of them.
    RETURNS (str): The plot as SVG; "" if all ways cost the same.
    """
    points = outcome.points
    if len({point.cost for point in points}) < 2:
        return ""
    most = max(point.seeds for point in points)
    settled = next(point.seeds for point in points if point.way == outcome.chosen)
    best = pareto_front([point for point in points if point.seeds >= settled])
    named = points if len(points) <= MOST_NAMES else [*best]
    for point in points:
        if point not in named and point.way in (outcome.chosen, causal):
            named.append(point)
    height = max(4.0, LINE * len(named) + 1.0)
    figure, axes = pyplot().subplots(figsize=(9, height))
    # Leave room for the names, whose width in inches is estimated by their length.
    longest = max(len(_name(point, outcome.chosen)) for point in named)
    right = max(0.5, 1 - (0.075 * longest + 0.5) / 9)
    figure.subplots_adjust(left=0.08, right=right, top=1 - 0.2 / height, bottom=0.6 / height)
    axes.plot([point.cost for point in best], [100 * point.score for point in best], color=BIDIRECTIONAL, linewidth=1.2)
    for point in points:
        axes.plot(
            point.cost,
            100 * point.score,
            "o",
            color=_colour(point, outcome.chosen, best),
            markersize=7 if point.seeds == most else 4,
            zorder=3,
        )
    axes.margins(x=0.06, y=0.06)
    axes.set_xlabel("cost of prediction, relative to the causal model")
    axes.set_ylabel("development score in percent")
    axes.grid(linewidth=0.4)
    _names(axes, named, outcome.chosen, best, LINE / height / (1 - 0.8 / height))
    return svg(figure)


def _names(axes: Any, named: list[Point], chosen: str, best: list[Point], line: float) -> None:
    """Write the names in a column at the right of the plot, in the order of the scores.

    line (float): The height of one name, as a fraction of the plot's height.
    """
    low, high = axes.get_ylim()
    rising = sorted(named, key=lambda point: (point.score, point.cost))
    wanted = [(100 * point.score - low) / (high - low) for point in rising]
    for point, place in zip(rising, spread(wanted, line), strict=True):
        axes.annotate(
            _name(point, chosen),
            (point.cost, 100 * point.score),
            xytext=(1.03, place),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            color=_colour(point, chosen, best),
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "#BBBBBB", "shrinkB": 3},
        )


def spread(wanted: list[float], gap: float) -> list[float]:
    """Move places apart until neighbours have a minimum distance, so that text at them does not overlap.

    The result rises, stays close to the given places, and lies between 0 and 1 if it fits there.

    wanted (list[float]): The places, in rising order.
    gap (float): The minimum distance.
    """
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + gap) if places else max(place, 0.0))
    ceiling = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - gap
    return places


def _name(point: Point, chosen: str) -> str:
    return display_name(point.way) + (" (chosen)" if point.way == chosen else "")


def _colour(point: Point, chosen: str, best: list[Point]) -> str:
    if point.way == chosen:
        return CHOSEN
    return BIDIRECTIONAL if point in best else OTHER
