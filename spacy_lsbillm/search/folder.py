"""A search in an output folder, from a config to the report.

It makes the checks before the first training, finds the place of the results, and writes the files after the search.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from thinc.api import Config

from ..errors import SettingError
from ..pages import check_plots
from .budget import Budget
from .candidates import combine_ways, parse_values, use_stored_names
from .experiment import Experiment, check_dev_corpus
from .masks import all_masks
from .outcome import Outcome
from .price import Prices
from .report import write_report
from .run import RemoteTrainer, search
from .shared import check_shared
from .strategies import Halving, Plan, Strategy, create_strategy
from .study import Study, claim_folder
from .ways import DIMENSIONS, identity_of


@dataclass(frozen=True)
class SearchSettings:
    """What to search.

    strategy (str): A name in `strategies.STRATEGIES`. If `masks` are given, the search is a grid, whatever the
        strategy.
    groups (Sequence[int]): Numbers of groups of layers, whose masks are tried.
    masks (Sequence[str] | None): Only these masks instead.
    varied (Mapping[str, str]): The values of other settings, as text in the form of the command's options.
    seeds (Sequence[int]): The seeds with which each way is trained.
    """

    strategy: str
    groups: Sequence[int]
    masks: Sequence[str] | None
    varied: Mapping[str, str]
    seeds: Sequence[int]


@dataclass(frozen=True)
class SearchReport:
    """A finished search and its files.

    outcome (Outcome): The result.
    paths (dict[str, Path]): The files: "table", "results", "config", "report".
    """

    outcome: Outcome
    paths: dict[str, Path]


class Search:
    """A search that is about to begin. Everything that can be checked without the storage has been checked.

    test (Path | None): The test corpus.
    budget (float | None): The maximum cost, in trainings of the causal model; None for no limit.
    RAISES (ValueError): A setting is not allowed, or does not fit the config, its base or the budget.
    """

    def __init__(
        self,
        config: Config,
        component: str | None,
        settings: SearchSettings,
        test: Path | None = None,
        budget: float | None = None,
    ) -> None:
        self.experiment = create_experiment(config, component, test)
        self._settings, self._test = settings, test
        varied = {dimension.setting: dimension for dimension in DIMENSIONS if dimension.setting in settings.varied}
        values = {
            name: parse_values(dimension, settings.varied[name], self.experiment) for name, dimension in varied.items()
        }
        if settings.strategy == "greedy" and settings.masks is None and values:
            options = ", ".join(dimension.option for dimension in varied.values())
            raise SettingError(
                f"--strategy greedy varies only masks. Leave out {options}, or use --strategy grid or halving."
            )
        masks = settings.masks or masks_of_groups(settings.groups, None if values else self.experiment.n_layers)
        # What is left out: combinations that are not tried, with the reason.
        self.ways, self.left_out = combine_ways(masks, values, self.experiment)
        # This also refuses settings that do not fit the base.
        self._prices = Prices(self.experiment)
        self.strategy = self._create_strategy(self.ways)
        self._budget = None if budget is None else Budget(budget, self._prices.training_price)
        if self._budget is not None:
            self._budget.check(self.strategy)
        self.experiment.check_scores(test)

    def run(
        self,
        output: Path,
        storage: str | None,
        about: dict[str, Any],
        use_gpu: int,
        remote: RemoteTrainer | None = None,
    ) -> SearchReport:
        """Search, or resume a search, and write the report.

        output (Path), storage (str | None): See `open_study`.
        about (dict): See `run_details`.
        remote (RemoteTrainer | None): Trains in other processes; None: this process trains.
        """
        study = open_study(output, storage, self.experiment)
        ways = use_stored_names(self.ways, study.trainings(), self.experiment.n_layers)
        return search_and_report(
            self.experiment,
            self._create_strategy(ways),
            study,
            output,
            about,
            ways=ways,
            seeds=self._settings.seeds,
            test=self._test,
            use_gpu=use_gpu,
            prices=self._prices,
            budget=self._budget,
            remote=remote,
        )

    def _create_strategy(self, ways: Sequence[str]) -> Strategy:
        settings, steps = self._settings, self.experiment.steps
        # Computed for every strategy, since this refuses settings that do not fit the base.
        costs = {way: self._prices.cost(way).prediction for way in ways}
        name = settings.strategy if settings.masks is None else "grid"
        strategy = create_strategy(name, Plan(ways, settings.seeds, steps, settings.groups, costs))
        if isinstance(strategy, Halving):
            check_shared(self.experiment, ways)
        return strategy


def create_experiment(config: Config, component: str | None, test: Path | None) -> Experiment:
    """Create the experiment of a config, and check its corpora and what the report needs.

    RAISES (ValueError): matplotlib is not installed, a corpus is missing, or the config cannot be searched.
    """
    check_plots()
    if test is not None and not test.exists():
        raise SettingError(f"there is no test corpus {str(test)!r}.")
    check_dev_corpus(config)
    return Experiment.of(config, component)


def masks_of_groups(groups: Sequence[int], n_layers: int | None) -> list[str]:
    """The masks of several numbers of groups, each mask once.

    n_layers (int | None): The layers of the model, to recognize masks that unmask the same layers; None if several
        depths are tried.
    RAISES (MaskError): A number of groups is not allowed, or does not divide the layers.
    """
    masks = list(dict.fromkeys(mask for number in groups for mask in all_masks(number)))
    if n_layers is None:
        return masks
    by_layers = {identity_of(mask, n_layers): mask for mask in reversed(masks)}
    return [mask for mask in masks if by_layers[identity_of(mask, n_layers)] == mask]


def open_study(output: Path, storage: str | None, experiment: Experiment) -> Study:
    """Open the storage of a search, or create it.

    Models and rankings are kept in the output folder, wherever the storage is.

    storage (str | None): The URL of a database; None: one in the folder.
    RAISES (StorageError): The folder or the storage belongs to another search, or cannot be used.
    """
    output.mkdir(parents=True, exist_ok=True)
    identity = experiment.identity
    study = Study(storage or f"sqlite:///{output.resolve() / 'search.db'}", identity)
    claim_folder(output, identity)
    return study


def run_details(config_path: Path, strategy: str, seeds: Sequence[int], test: Path | None) -> dict[str, Any]:
    """What a result file records besides the results: config, strategy, seeds, test corpus, versions."""
    return {
        "config": str(config_path),
        "strategy": strategy,
        "seeds": list(seeds),
        "test_corpus": str(test) if test else None,
        "versions": {name: version(name) for name in ("spacy-lsbillm", "spacy", "torch", "transformers", "peft")},
        "python": platform.python_version(),
    }


def search_and_report(
    experiment: Experiment, strategy: Strategy, study: Study, output: Path, about: dict[str, Any], **settings: Any
) -> SearchReport:
    """Search and write the report.

    settings: The keyword arguments of `search.run.search`.
    """
    outcome = search(experiment, strategy, study, output, **settings)
    return SearchReport(
        outcome, write_report(output, outcome, experiment, about | {"base": experiment.identity["base"]})
    )
