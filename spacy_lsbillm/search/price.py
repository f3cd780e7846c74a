"""What trainings and predictions cost, computed before anything is trained.

The unit is one piece going forward through one layer of the decoder, which costs `FORWARD`. In a training update the
way back costs `BACKWARD` more; with a frozen base and no adapter nothing goes back, and with gradient checkpointing
each layer goes forward a second time. Not counted are the heads, the padding of batches, the greater cost of attention
in longer rows, and the savings of `heads_first`, whose updates are somewhat cheaper.

A training in full has `training.max_steps` updates plus the one that spaCy makes after the last, and an evaluation at
step 0 and at each multiple of `training.eval_frequency`; a training that `training.patience` ends earlier costs less
than its price. Prices are relative to the causal model: 1 is a training, or a prediction of the development set, with
`unmask = "none"` and `repeat = 0` at the depth and for the steps of the config.
"""

from dataclasses import dataclass
from typing import Any

from .corpus_pieces import CorpusPieces, PieceCounter
from .experiment import Experiment
from .training import Training
from .ways import format_settings, layers_of, settings_text, way_of

FORWARD = 1
# A rule of thumb for two parts: the gradients of the vectors through frozen weights, and those of the adapter.
BACKWARD = 2


@dataclass(frozen=True)
class Cost:
    """What a way costs, relative to the causal model.

    training (float): The cost of one training in full.
    prediction (float): The cost of predicting the same documents.
    """

    training: float
    prediction: float


class Prices:
    """The prices of trainings and predictions in a search, each of them computed once.

    RAISES (ValueError): A corpus cannot be read.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._counter = PieceCounter(experiment)
        self._backward = _backward(experiment.model)
        self._known: dict[Training, float] = {}
        causal = Training("none", 0, experiment.steps, self._causal_settings())
        self._unit = self.layer_pieces(causal)
        self._prediction_unit = self._evaluation(causal.way)

    def training_price(self, training: Training) -> float:
        """The price of a training, also of a shared one, relative to a training of the causal model in full.

        RAISES (ValueError): The settings of the training do not fit the base.
        """
        return self.layer_pieces(training) / self._unit

    def cost(self, way: str) -> Cost:
        """The cost of a way.

        RAISES (ValueError): The settings of the way do not fit the base.
        """
        full = Training.of(way, 0, self._experiment.steps)
        return Cost(self.training_price(full), self._evaluation(way) / self._prediction_unit)

    def layer_pieces(self, training: Training) -> float:
        """The absolute price of a training: pieces times layers, with the way back at its weight."""
        if training not in self._known:
            way = way_of("none", training.settings)
            updates = self._pieces(way).update * (training.steps + 1) * layers_of(way, self._experiment.n_layers)
            evaluations = self._evaluations(training) * self._evaluation(way)
            self._known[training] = updates * (FORWARD + self._backward) + evaluations
        return self._known[training]

    def _evaluation(self, way: str) -> float:
        return self._pieces(way).dev * layers_of(way, self._experiment.n_layers) * FORWARD

    def _pieces(self, way: str) -> CorpusPieces:
        return self._counter.count(settings_text(way))

    def _evaluations(self, training: Training) -> int:
        if len(training.masks) > 1:
            # One at the beginning, one at the end, and one per mask.
            return 2 + len(training.masks)
        return training.steps // int(self._experiment.config_of(training)["training"]["eval_frequency"]) + 1

    def _causal_settings(self) -> str:
        """The settings of the causal model: those of the config, but without repetition."""
        return format_settings({"repeat": 0}) if self._experiment.model.get("repeat") else ""


def _backward(model: dict[str, Any]) -> int:
    """What an update costs more than a prediction, per piece and layer.

    model (dict): The settings of the model.
    """
    if model.get("lora", True) is None:
        return 0
    return BACKWARD + (FORWARD if model.get("gradient_checkpointing") else 0)
