"""What trials and predictions cost, known before anything is trained.

The unit is a piece in a layer, going forward: a piece that goes through one layer of the decoder in an evaluation costs
`FORWARD`. In an update it costs that and, going back, `BACKWARD`; with a frozen base and no adapter nothing goes back,
and with gradient checkpointing each layer goes forward once more. Heads, the padding of batches, and what attention
takes more in longer rows are not in it, nor are the updates of `heads_first`, which are somewhat cheaper.

A training in full has `training.max_steps` updates and the one that spaCy makes after the last, and an evaluation at
step 0 and at each multiple of `training.eval_frequency`; one that ends earlier by `training.patience` costs less than
its price. Prices are told relative to those of the causal model: 1 is a training, or a prediction of the development
set, with `unmask = "none"` and `repeat = 0` at the depth and for the steps of the config.
"""

from dataclasses import dataclass

from .corpus_pieces import CorpusPieces, PieceCounter
from .experiment import Experiment
from .training import Training
from .ways import layers_of, way_of, write_settings, written_settings

FORWARD = 1
# Of the vectors' gradients through frozen weights and of the adapter's, by rule of thumb.
BACKWARD = 2


@dataclass(frozen=True)
class Cost:
    """What a way costs, relative to the causal model.

    training (float): One, in full.
    prediction (float): Of the same documents.
    """

    training: float
    prediction: float


class Prices:
    """The prices of a search.

    RAISES (ValueError): A corpus cannot be read.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._counter = PieceCounter(experiment)
        causal = Training("none", 0, experiment.steps, self._causal_settings())
        self._unit = self.layer_pieces(causal)
        self._prediction_unit = self._evaluation(causal.way)

    def training(self, training: Training) -> float:
        """Of a training, a shared one too, relative to one of the causal model in full.

        RAISES (ValueError): Its settings do not fit the base.
        """
        return self.layer_pieces(training) / self._unit

    def cost(self, way: str) -> Cost:
        """Of a way.

        RAISES (ValueError): Its settings do not fit the base.
        """
        full = Training.of(way, 0, self._experiment.steps)
        return Cost(self.training(full), self._evaluation(way) / self._prediction_unit)

    def layer_pieces(self, training: Training) -> float:
        """Of a training: pieces in layers, those that go back by their weight."""
        way = way_of("none", training.settings)
        updates = self._pieces(way).update * (training.steps + 1) * layers_of(way, self._experiment.n_layers)
        return updates * (FORWARD + self._backward) + self._evaluations(training) * self._evaluation(way)

    def _evaluation(self, way: str) -> float:
        return self._pieces(way).dev * layers_of(way, self._experiment.n_layers) * FORWARD

    def _pieces(self, way: str) -> CorpusPieces:
        return self._counter.count(written_settings(way))

    def _evaluations(self, training: Training) -> int:
        if len(training.masks) > 1:
            # At the beginning and at the end, and under each mask.
            return 2 + len(training.masks)
        return training.steps // int(self._experiment.config_of(training)["training"]["eval_frequency"]) + 1

    @property
    def _backward(self) -> int:
        model = self._experiment.model
        if model.get("lora", True) is None:
            return 0
        return BACKWARD + (FORWARD if model.get("gradient_checkpointing") else 0)

    def _causal_settings(self) -> str:
        """The config's own but for its repetition."""
        return write_settings({"repeat": 0}) if self._experiment.model.get("repeat") else ""
