"""A ranking of masks in an output folder, from a config to the report.

With `then`, a search among the top masks follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinc.api import Config

from ..errors import SettingError
from .candidates import combine_ways
from .folder import SearchReport, create_experiment, masks_of_groups, open_study, search_and_report
from .prediction import Prediction
from .predictors import check_predictor, rank
from .report import write_ranking
from .strategies import Grid


@dataclass(frozen=True)
class RankingSettings:
    """What to rank, and how.

    predictor (str): See `predictors`.
    groups (Sequence[int]): Numbers of groups of layers, whose masks are ranked.
    masks (Sequence[str] | None): Only these masks instead.
    seeds (Sequence[int]): Seeds of each training.
    share (float): The fraction of the training steps for "first-steps" and "first-loss".
    then (int): How many masks to train in full, from the top of the ranking.
    """

    predictor: str
    groups: Sequence[int]
    masks: Sequence[str] | None
    seeds: Sequence[int]
    share: float
    then: int


@dataclass(frozen=True)
class RankingReport:
    """A finished ranking and its files.

    prediction (Prediction): The ranking.
    paths (dict[str, Path]): The files: "ranking", "results", "config".
    search (SearchReport | None): The search among the top masks; None without `then`.
    """

    prediction: Prediction
    paths: dict[str, Path]
    search: SearchReport | None


class Ranking:
    """A ranking that is about to begin. Everything that can be checked without the storage has been checked.

    test (Path | None): The test corpus, for the masks that are trained in full.
    RAISES (ValueError): A setting is not allowed, or does not suit the config.
    """

    def __init__(
        self, config: Config, component: str | None, settings: RankingSettings, test: Path | None = None
    ) -> None:
        if test is not None and not settings.then:
            raise SettingError("--test needs trained models: say with --then how many masks to train.")
        self.experiment = create_experiment(config, component, test)
        self._settings, self._test = settings, test
        self.masks, _ = combine_ways(
            settings.masks or masks_of_groups(settings.groups, self.experiment.n_layers), {}, self.experiment
        )
        if not 0 <= settings.then <= len(self.masks):
            raise SettingError(
                f"--then {settings.then} is not allowed: there are {len(self.masks)} masks. Use 0 to {len(self.masks)}."
            )
        check_predictor(settings.predictor, self.experiment, self.masks, settings.share)
        self.experiment.check_scores(test)

    def run(self, output: Path, storage: str | None, about: dict[str, Any], use_gpu: int) -> RankingReport:
        """Rank, or resume, and write the report.

        output (Path), storage (str | None): See `open_study`.
        about (dict): See `run_details`.
        """
        settings, experiment, seeds = self._settings, self.experiment, self._settings.seeds
        study = open_study(output, storage, experiment)
        prediction = rank(
            settings.predictor, experiment, self.masks, seeds, study, output, share=settings.share, use_gpu=use_gpu
        )
        paths = write_ranking(output, prediction, experiment, len(seeds), about)
        if not settings.then:
            return RankingReport(prediction, paths, None)
        first = [mask for mask in self.masks if mask in prediction.ranking[: settings.then]]
        report = search_and_report(
            experiment,
            Grid(first, seeds, experiment.steps),
            study,
            output,
            about,
            ways=first,
            seeds=seeds,
            test=self._test,
            use_gpu=use_gpu,
            spent=prediction.steps,
            considered=len(self.masks),
        )
        return RankingReport(prediction, paths, report)
