"""A search from beginning to end: trainings until the strategy is done, then the test set, once."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from ..errors import SettingError
from .budget import Budget
from .experiment import Experiment
from .extension import extension_test
from .on_test import scores_on_test, ways_to_test
from .outcome import Outcome, ScoresOnTest, Spending, rows_of, scores_of, shared_rows
from .price import Prices
from .significance import paired_bootstrap
from .strategies import Grid, Results, Strategy, best_so_far, trainings_of
from .study import Study, TrainingResult, no_limit
from .trainer import Train, trainer
from .training import Training
from .ways import mask_of

# Seconds to wait before looking again whether other processes have finished their trainings.
PATIENCE = 2.0


@dataclass(frozen=True)
class RemoteTrainer:
    """Trains in other processes.

    train (Callable): Runs one training, and leaves the model of a training in full where `model_folder` says. It may be
        called from several threads.
    at_once (int): How many trainings may run at the same time.
    stop (Callable): Ends all trainings that are running; the calls that wait for them raise an error.
    """

    train: Train
    at_once: int
    stop: Callable[[], None]


def search(
    experiment: Experiment,
    strategy: Strategy,
    study: Study,
    folder: Path,
    *,
    ways: Sequence[str],
    seeds: Sequence[int],
    test: Path | None = None,
    score: str | None = None,
    use_gpu: int = -1,
    spent: int = 0,
    considered: int | None = None,
    prices: Prices | None = None,
    budget: Budget | None = None,
    remote: RemoteTrainer | None = None,
) -> Outcome:
    """Run a search, or resume one.

    folder (Path): The folder in which the models of trainings in full are kept.
    ways (Sequence[str]): The ways of the strategy, in the order of the table.
    test (Path | None): The test corpus, which is used once, after the choice.
    score (str | None): The score on it; None: the one with the highest weight in the config.
    spent (int): Steps of earlier trainings by which these ways were chosen from others.
    considered (int | None): How many ways that choice was made from; None if there was none.
    prices (Prices | None): Prices for the report; None: the report gives no costs.
    budget (Budget | None): The maximum cost of all trainings in the storage together; None for no limit.
    remote (RemoteTrainer | None): Trains in other processes; None: this process trains.
    RETURNS (Outcome): The result.
    RAISES (SettingError): The budget ended before anything was trained in full.
    """
    train = remote.train if remote else trainer(experiment, folder, use_gpu)
    run_all(strategy, study, train, "trainings", budget, remote)
    tested: list[ScoresOnTest] = []
    if test is not None:
        chosen = choose_way(strategy, scores_of(study.results()), ways, seeds, experiment.steps, budget)
        compared = ways_to_test(chosen, ways, experiment)
        run_all(Grid(compared, seeds, experiment.steps), study, train, "trainings for the test", budget, remote)
        name = score or experiment.heaviest_score
        # A budget may have left out seeds of the chosen way, or a baseline.
        results = study.results()
        trained = {
            way: [seed for seed in seeds if Training.of(way, seed, experiment.steps) in results] for way in compared
        }
        tested = [
            scores_on_test(experiment, way, trained[chosen], test, name, folder, train)
            for way in compared
            if set(trained[way]) >= set(trained[chosen])
        ]
    results = study.results()
    spending = None
    if prices is not None:
        known = {way for training in results for way in training.ways}
        costs = {way: prices.cost(way) for way in [*ways, *sorted(known - set(ways))]}
        complete = not strategy.stage(scores_of(results))
        total = sum(prices.training_price(training) for training in results)
        spending = Spending(costs, total, budget.total if budget else None, complete)
    return outcome_of(
        experiment,
        strategy,
        results,
        tested,
        ways=ways,
        seeds=seeds,
        spent=spent,
        considered=considered,
        spending=spending,
        budget=budget,
    )


def choose_way(
    strategy: Strategy, results: Results, ways: Sequence[str], seeds: Sequence[int], steps: int, budget: Budget | None
) -> str:
    """The way that the strategy chooses, or, if the budget has ended it early, the best way so far.

    RAISES (SettingError): The budget ended before anything was trained in full.
    """
    if budget is None or not strategy.stage(results):
        return strategy.best(results)
    best = best_so_far(ways, steps, seeds, results)
    if best is None:
        raise SettingError(
            f"--budget {budget.total:g} is used up: the trainings in the storage have cost "
            f"{budget.total_price(results):.3g}, and no way was trained in full. Raise the budget."
        )
    return best


def outcome_of(
    experiment: Experiment,
    strategy: Strategy,
    results: dict[Training, TrainingResult],
    tested: list[ScoresOnTest],
    *,
    ways: Sequence[str],
    seeds: Sequence[int],
    spent: int = 0,
    considered: int | None = None,
    spending: Spending | None = None,
    budget: Budget | None = None,
) -> Outcome:
    """Assemble the result of a finished search.

    results (dict): All trainings in the storage, including those of the search.
    tested (list[ScoresOnTest]): The scores on the test set, the chosen way first; empty without one.
    ways (Sequence[str]), seeds (Sequence[int]), spent (int), considered (int | None), budget (Budget | None): See
        `search`.
    spending (Spending | None): What the search cost; None if prices were not asked for.
    """
    training_scores = scores_of(results)
    first = tested[0].counts if tested else None
    differences = {
        scores.way: paired_bootstrap(first, scores.counts)
        for scores in tested[1:]
        if first is not None and scores.counts is not None
    }
    rows = rows_of(results, ways, seeds)
    full = {row.way: row.scores for row in rows if row.steps == experiment.steps and len(row.scores) == len(seeds)}
    # No test if only the masks that looked best on dev were trained: these say nothing about masks in general.
    all_trained = considered is None and full.keys() >= set(ways)
    # The masks of a pair must not differ in other settings.
    plain = {way: scores for way, scores in full.items() if way == mask_of(way)}
    return Outcome(
        choose_way(strategy, training_scores, ways, seeds, experiment.steps, budget),
        rows,
        shared_rows(results, ways, seeds, experiment.steps),
        spent + sum(training.steps for training in trainings_of(strategy, training_scores) if training in results),
        experiment.steps * (considered or len(ways)) * len(seeds),
        tested,
        differences,
        extension_test(plain, experiment.n_layers) if all_trained and plain else None,
        spending,
    )


def run_all(
    strategy: Strategy,
    study: Study,
    train: Train,
    label: str,
    budget: Budget | None = None,
    remote: RemoteTrainer | None = None,
) -> None:
    """Run the trainings of a strategy until it needs no more, or nothing more fits the budget.

    Trainings of other processes count, and are waited for.

    train (Callable): Runs a training; see `trainer`.
    label (str): The text before the progress bar.
    budget (Budget | None): The limit; None for no limit.
    remote (RemoteTrainer | None): Trains in other processes, several trainings at once; None: trainings run one after
        the other in this process.
    """
    at_once = min(remote.at_once, strategy.n_trainings) if remote else 1
    with tqdm(total=strategy.n_trainings, desc=label, unit=" trainings", smoothing=0.1) as bar:
        work = _Work(strategy, study, train, budget, bar)
        if remote is None or at_once <= 1:
            work.run()
            return
        with ThreadPoolExecutor(at_once) as threads:
            futures = [threads.submit(work.run) for _ in range(at_once)]
            try:
                # The first error, or an interrupt, stops the others.
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()
            except BaseException:
                work.stopped.set()
                remote.stop()
                raise


class _Work:
    """The remaining trainings of a strategy. Several threads may work on them together, as several processes may."""

    def __init__(self, strategy: Strategy, study: Study, train: Train, budget: Budget | None, bar: Any) -> None:
        self._strategy, self._study, self._train = strategy, study, train
        self._budget, self._bar = budget, bar
        self._bar_lock = threading.Lock()
        # Set once something has failed.
        self.stopped = threading.Event()

    def run(self) -> None:
        """Run trainings until nothing is left, or `stopped` is set."""
        study, budget = self._study, self._budget
        while not self.stopped.is_set():
            results = scores_of(study.results())
            stage = self._strategy.stage(results)
            with self._bar_lock:
                if not stage:
                    self._bar.update(self._bar.total - self._bar.n)
                    return
                self._bar.n = sum(training in results for training in trainings_of(self._strategy, results))
            training = study.run_next(stage, self._train, budget.fits if budget else no_limit)
            if training is not None:
                which = (
                    training.way
                    if len(training.masks) == 1
                    else f"{len(training.masks)} masks {training.settings}".rstrip()
                )
                score = study.results()[training].score
                with self._bar_lock:
                    self._bar.set_postfix_str(f"{which} seed {training.seed}: {score:.4f}")
            elif budget and not set(stage) & study.trainings() - study.results().keys():
                # Nothing more fits the budget, and no other process runs a training of this stage.
                return
            else:
                self.stopped.wait(PATIENCE)
