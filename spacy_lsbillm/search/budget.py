"""The limit on the cost of a search, which all processes that share a storage keep together."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from ..errors import SettingError
from .strategies import Strategy
from .training import Training

# Relative tolerance: sums in another order differ in their last digits.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Budget:
    """The maximum cost of a search.

    total (float): The limit, in trainings of the causal model.
    price (Callable): Gives the price of a training in the same unit.
    """

    total: float
    price: Callable[[Training], float]

    def total_price(self, trainings: Iterable[Training]) -> float:
        """The price of all given trainings together.

        trainings (Iterable[Training]): The trainings that are finished or running.
        """
        return sum(map(self.price, trainings))

    def fits(self, taken: Collection[Training], training: Training) -> bool:
        """Whether a training may start without exceeding the limit.

        taken (Collection[Training]): The trainings that are finished or running.
        training (Training): The training to start.
        """
        return self.total_price(taken) + self.price(training) <= self.total * (1 + ROUNDING)

    def check(self, strategy: Strategy) -> None:
        """Refuse a budget that is too small for a strategy to choose anything.

        RAISES (SettingError): The budget is below the least that the strategy needs.
        """
        least = strategy.minimum_price(self.price)
        if not least <= self.total * (1 + ROUNDING):
            raise SettingError(
                f"--budget {self.total:g} is too small: this search needs at least {least:.3g} trainings of the causal "
                f"model. Raise the budget, or leave out expensive ways."
            )
