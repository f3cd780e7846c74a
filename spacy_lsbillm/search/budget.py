"""What a search may cost, kept by all processes that share its storage."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from ..errors import SettingError
from .strategies import Strategy
from .training import Training

# Sums in another order differ in their last digits.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Budget:
    """What a search may cost.

    total (float): In trainings of the causal model.
    price (Callable): Of a training, in these.
    """

    total: float
    price: Callable[[Training], float]

    def spent(self, trainings: Iterable[Training]) -> float:
        """By trainings that are finished or under way."""
        return sum(map(self.price, trainings))

    def fits(self, taken: Collection[Training], training: Training) -> bool:
        """Whether a training may be begun.

        taken (Collection[Training]): What is finished or under way.
        """
        return self.spent(taken) + self.price(training) <= self.total * (1 + ROUNDING)

    def check(self, strategy: Strategy) -> None:
        """RAISES (SettingError): The strategy would have nothing to choose from."""
        least = strategy.least(self.price)
        if not least <= self.total * (1 + ROUNDING):
            raise SettingError(
                f"--budget {self.total:g} is too little: the least that this search can do costs {least:.3g} trainings "
                f"of the causal model. Raise it, or leave dear ways out."
            )
