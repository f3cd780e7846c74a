"""How many pieces of a config's corpora pass through its model. They are counted once, without loading any weights."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from spacy.language import Language
from spacy.schemas import ConfigSchemaTraining
from spacy.tokens import Doc
from spacy.util import load_model_from_config, registry

from ..alignment.statistics import CutSettings, count_pieces
from ..pipeline.cut_settings import cutting_for
from .experiment import Experiment
from .training import Training

# Documents of a corpus that are read; the rest is assumed to be like them.
READ = 10_000
BATCH_SIZE = 256


@dataclass(frozen=True)
class CorpusPieces:
    """Numbers of pieces that pass through the model.

    They include special pieces and every copy of a window, without padding.

    update (float): Pieces per training update, averaged over the batches of the corpus.
    dev (int): Pieces per evaluation on the development corpus.
    """

    update: float
    dev: int


class PieceCounter:
    """Counts the pieces of a config's corpora under different settings of the model.

    Documents are read once, and counts are cached: settings that cut the text in the same way share one.

    RAISES (ValueError): A corpus cannot be read.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        plain = experiment.config.interpolate()
        nlp: Language = load_model_from_config(plain)
        training: dict[str, Any] = registry.resolve(plain["training"], schema=ConfigSchemaTraining)
        train, dev = experiment.corpora()
        examples = list(islice(train(nlp), READ))
        self._batches = max(1, sum(1 for _ in training["batcher"](examples)))
        self._train = [example.predicted for example in examples]
        self._dev: list[Doc] = [example.predicted for example in dev(nlp)]
        # The key is what settings change: window, overlap and copies.
        self._counted: dict[tuple[int, int, int], CorpusPieces] = {}
        # The settings that were asked for: what they change takes a copy of the config to find out.
        self._known: dict[str, CorpusPieces] = {}

    def count(self, settings: str) -> CorpusPieces:
        """Count the pieces under the settings of a way.

        settings (str): The settings as written in the way; "" for those of the config.
        RETURNS (CorpusPieces): The counts.
        RAISES (ValueError): A setting is not allowed, or does not fit the base.
        """
        if settings not in self._known:
            self._known[settings] = self._count(settings)
        return self._known[settings]

    def _count(self, settings: str) -> CorpusPieces:
        training = Training("none", 0, self._experiment.steps, settings)
        block = self._experiment.config_of(training).interpolate()["components"][self._experiment.component]
        _, cutting = cutting_for(block, BATCH_SIZE)
        key = (cutting.window, cutting.overlap, cutting.repeat)
        if key not in self._counted:
            update = _pieces(self._train, cutting) / self._batches
            self._counted[key] = CorpusPieces(update, _pieces(self._dev, cutting))
        return self._counted[key]


def _pieces(docs: Iterable[Doc], cutting: CutSettings) -> int:
    statistics = count_pieces(docs, cutting)
    return statistics.items - statistics.padding
