"""Running one training of a config in this process, without its output, and returning its result."""

import gc
import io
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from spacy.language import Language
from spacy.training.initialize import init_nlp
from spacy.training.loop import train
from thinc.api import Config

from ..files import TemporaryFolder


@dataclass(frozen=True)
class TrainingRun:
    """The result of a training.

    curve (list[tuple[int, float]]): Step and score of each evaluation, the score by the config's weights.
    scores (dict): All scores of the best evaluation.
    losses (dict): Losses by component, summed over all steps up to the last evaluation.
    seconds (float): Duration, including loading and evaluation.
    """

    curve: list[tuple[int, float]]
    scores: dict[str, float | None]
    losses: dict[str, float]
    seconds: float

    @property
    def score(self) -> float:
        """The highest score of the learning curve."""
        return max(score for _, score in self.curve)


def run_training(config: Config, output: Path | None, use_gpu: int = -1) -> TrainingRun:
    """Train a config as `spacy train` does, but without its output.

    output (Path | None): Folder for `model-best` and `model-last`; None to keep no model.
    use_gpu (int): The number of the GPU, -1 for the CPU; the caller has set it up.
    """
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    config = config.copy()
    # Earlier pipelines that only reference cycles keep alive would count as users of the same base.
    gc.collect()
    begun = time.monotonic()
    with TemporaryFolder() as folder:
        log = folder / "log.jsonl"
        config["training"]["logger"] = {
            "@loggers": "spacy.ConsoleLogger.v3",
            "progress_bar": None,
            "console_output": False,
            "output_file": str(log),
        }
        nlp: Language = init_nlp(config, use_gpu=use_gpu)
        train(nlp, output, use_gpu=use_gpu, stdout=io.StringIO(), stderr=io.StringIO())
        rows = [json.loads(line) for line in log.read_text(encoding="utf8").splitlines()]
    seconds = time.monotonic() - begun
    best = max(rows, key=lambda row: row["score"])
    curve = [(row["step"], row["score"]) for row in rows]
    # spaCy's sums restart after each evaluation.
    losses: Counter[str] = Counter()
    for row in rows:
        losses.update(row["losses"])
    return TrainingRun(curve, best["scores"], dict(losses), seconds)
