"""A search from beginning to end: trials until the strategy is done, then the test set, once."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from filelock import FileLock
from spacy.language import Language
from spacy.scorer import Scorer
from spacy.training import Corpus
from spacy.training.loop import DIR_MODEL_BEST
from spacy.util import load_model
from tqdm import tqdm  # type: ignore[import-untyped]

from ..errors import SettingError
from ..training.quiet_run import TrainingRun
from .budget import Budget
from .extension import Extension, extension_test
from .pareto import Point
from .price import Cost, Prices
from .shared import train_shared
from .significance import Difference, counts_for, paired_bootstrap
from .space import Cell, file_name, same_layers
from .strategies import Grid, Results, Shared, Strategy, best_so_far, cells_of
from .study import Finished, Study, always
from .trials import Subject
from .ways import mask_of

MODELS = "models"
# Seconds between looks at what other processes are doing.
PATIENCE = 2.0
BASELINES = ("none", "all")


# Cell to score and record.
Train = Callable[[Cell], tuple[float, dict[str, Any]]]


@dataclass(frozen=True)
class Elsewhere:
    """Trainings in other processes.

    train (Callable): Trains a cell, and leaves the model of a full training where `model_folder` says. It may be called
        in several threads.
    at_once (int): How many cells may be trained at the same time.
    stop (Callable): Ends all trainings that are under way; the calls that wait for them raise an error.
    """

    train: Train
    at_once: int
    stop: Callable[[], None]


@dataclass(frozen=True)
class Row:
    """A way's scores at one length of training.

    way (str), steps (int): Which.
    scores (list[float]): One a seed, on the development set.
    seconds (float): Of all its trainings.
    curves (list[list[tuple[int, float]]]): One a seed: step and score.
    """

    way: str
    steps: int
    scores: list[float]
    seconds: float
    curves: list[list[tuple[int, float]]]

    @property
    def mean(self) -> float:
        """Over seeds."""
        return mean(self.scores)

    @property
    def spread(self) -> float:
        """The standard deviation over seeds; 0 with one."""
        return stdev(self.scores) if len(self.scores) > 1 else 0.0


@dataclass(frozen=True)
class Tested:
    """What the test set says of a way.

    way (str): Which.
    scores (list[float]): One a seed.
    counts (ndarray | None): True and false positives and false negatives, shape (seeds, documents, 3).
    """

    way: str
    scores: list[float]
    counts: np.ndarray | None


@dataclass(frozen=True)
class Spending:
    """What a search cost, in trainings of the causal model.

    costs (dict[str, Cost]): Of each way.
    spent (float): By all that its storage holds.
    budget (float | None): What it was allowed; None: there was no limit.
    complete (bool): Whether the strategy came to its end.
    """

    costs: dict[str, Cost]
    spent: float
    budget: float | None = None
    complete: bool = True


@dataclass(frozen=True)
class Outcome:
    """A finished search.

    chosen (str): The way that the development set chose.
    rows (list[Row]): All ways that had a training of their own, at each length.
    shared (list[Row]): All ways as the shared trainings score them; empty where there were none.
    steps (int): Of the trainings by which the way was chosen, together, those of a prediction counted.
    grid_steps (int): Of the full grid over all ways that were considered, with the same seeds.
    tested (list[Tested]): The chosen way, "none" and "all"; empty without a test set.
    differences (dict): Of the chosen way to each of the others, on the test set.
    extension (Extension | None): Of the masks that were trained in full, on the development set: whether it helps to
        unmask more towards the output; None where only some were, or no pairs could tell.
    spending (Spending | None): None where prices were not asked for.
    """

    chosen: str
    rows: list[Row]
    shared: list[Row]
    steps: int
    grid_steps: int
    tested: list[Tested]
    differences: dict[str, Difference]
    extension: Extension | None = None
    spending: Spending | None = None

    @property
    def points(self) -> list[Point]:
        """The ways that were trained in full, between cost and score; empty where prices were not asked for."""
        if self.spending is None:
            return []
        longest = max(row.steps for row in self.rows)
        costs = self.spending.costs
        return [
            Point(row.way, costs[row.way].prediction, row.mean, len(row.scores))
            for row in self.rows
            if row.steps == longest and row.way in costs
        ]


def search(
    subject: Subject,
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
    elsewhere: Elsewhere | None = None,
) -> Outcome:
    """Run a search, or go on with one.

    folder (Path): Models of full trainings are kept in it.
    ways (Sequence[str]): The ways that the strategy is about, in the order of the table.
    test (Path | None): The test corpus, which is looked at once, in the end.
    score (str | None): The score on it; None: the one with the highest weight in the config.
    spent (int): Steps of training by which these ways were chosen from others before.
    considered (int | None): How many ways those were, together with these; None: there were no others.
    prices (Prices | None): For the report; None: it does not tell costs.
    budget (Budget | None): What all trainings in the storage may cost together; None: there is no limit.
    elsewhere (Elsewhere | None): What trains; None: this process.
    RAISES (SettingError): The budget ended before anything was trained in full.
    """
    train = elsewhere.train if elsewhere else trainer(subject, folder, use_gpu)
    run_all(strategy, study, train, "trainings", budget, elsewhere)
    tested: list[Tested] = []
    if test is not None:
        chosen = choice(strategy, scores_of(study.finished()), ways, seeds, subject.steps, budget)
        compared = compared_on_test(chosen, ways, subject)
        run_all(Grid(compared, seeds, subject.steps), study, train, "trainings for the test", budget, elsewhere)
        name = score or subject.heaviest_score
        # A budget may have left seeds out, or a way that it is compared with.
        done = study.finished()
        trained = {way: [seed for seed in seeds if Cell.of(way, seed, subject.steps) in done] for way in compared}
        tested = [
            on_test(subject, way, trained[chosen], test, name, folder, train)
            for way in compared
            if set(trained[way]) >= set(trained[chosen])
        ]
    results = study.finished()
    spending = None
    if prices is not None:
        known = {way for cell in results for way in cell.ways}
        costs = {way: prices.cost(way) for way in [*ways, *sorted(known - set(ways))]}
        complete = not strategy.stage(scores_of(results))
        total = sum(prices.training(cell) for cell in results)
        spending = Spending(costs, total, budget.total if budget else None, complete)
    return outcome_of(
        subject,
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


def choice(
    strategy: Strategy, results: Results, ways: Sequence[str], seeds: Sequence[int], steps: int, budget: Budget | None
) -> str:
    """What the strategy chooses, or where the budget has ended it the best so far.

    RAISES (SettingError): The budget ended before anything was trained in full.
    """
    if budget is None or not strategy.stage(results):
        return strategy.chosen(results)
    best = best_so_far(ways, steps, seeds, results)
    if best is None:
        raise SettingError(
            f"--budget {budget.total:g} is used up: the trainings in the storage have cost "
            f"{budget.spent(results):.3g}, and no way was trained in full. Raise it."
        )
    return best


def compared_on_test(chosen: str, ways: Sequence[str], subject: Subject) -> list[str]:
    """The chosen way and the baselines, as they are called among the ways of a search."""
    compared = [chosen]
    for baseline in BASELINES:
        same = same_layers(baseline, [*compared, *ways], subject.n_layers) or baseline
        if same not in compared:
            compared.append(same)
    return compared


def outcome_of(
    subject: Subject,
    strategy: Strategy,
    results: dict[Cell, Finished],
    tested: list[Tested],
    *,
    ways: Sequence[str],
    seeds: Sequence[int],
    spent: int = 0,
    considered: int | None = None,
    spending: Spending | None = None,
    budget: Budget | None = None,
) -> Outcome:
    """What a finished search has found.

    results (dict): Its trainings, and whatever else the storage holds.
    tested (list[Tested]): The chosen way first.
    ways (Sequence[str]), seeds (Sequence[int]), spent (int), considered (int | None), budget (Budget | None): See
        `search`.
    spending (Spending | None): What it cost.
    """
    scores = scores_of(results)
    first = tested[0].counts if tested else None
    differences = {
        one.way: paired_bootstrap(first, one.counts)
        for one in tested[1:]
        if first is not None and one.counts is not None
    }
    rows = rows_of(results, ways, seeds)
    full = {row.way: row.scores for row in rows if row.steps == subject.steps and len(row.scores) == len(seeds)}
    # Masks that were trained because they had looked best on dev say nothing of the others.
    all_trained = considered is None and full.keys() >= set(ways)
    # Pairs of masks differ in nothing else.
    plain = {way: own for way, own in full.items() if way == mask_of(way)}
    return Outcome(
        choice(strategy, scores, ways, seeds, subject.steps, budget),
        rows,
        shared_rows(results, ways, seeds, subject.steps),
        spent + sum(cell.steps for cell in cells_of(strategy, scores) if cell in results),
        subject.steps * (considered or len(ways)) * len(seeds),
        tested,
        differences,
        extension_test(plain, subject.n_layers) if all_trained and plain else None,
        spending,
    )


def trainer(subject: Subject, folder: Path, use_gpu: int = -1) -> Train:
    """What trains a cell of a study.

    folder (Path): Models of full trainings are kept in it.
    RETURNS (Callable): Cell to score and record.
    """

    def train(cell: Cell) -> tuple[float, dict[str, Any]]:
        if len(cell.masks) > 1:
            return train_shared(subject, cell, use_gpu)
        run = subject.run(cell, model_folder(folder, cell), use_gpu)
        return run.score, _record(run, subject.component)

    return train


def model_folder(folder: Path, cell: Cell) -> Path:
    """Where a trial works."""
    return folder / MODELS / file_name(cell.way) / f"{cell.seed}-{cell.steps}"


def run_all(
    plan: Strategy,
    study: Study,
    train: Train,
    label: str,
    budget: Budget | None = None,
    elsewhere: Elsewhere | None = None,
) -> None:
    """Do what a strategy asks for until it asks for nothing more, others have done it, or nothing fits the budget.

    train (Callable): See `trainer`.
    label (str): Of the progress bar.
    elsewhere (Elsewhere | None): What trains several at once; None: one after the other.
    """
    at_once = min(elsewhere.at_once, plan.trials) if elsewhere else 1
    with tqdm(total=plan.trials, desc=label, unit=" trainings", smoothing=0.1) as bar:
        work = _Work(plan, study, train, budget, bar)
        if elsewhere is None or at_once <= 1:
            work.all()
            return
        with ThreadPoolExecutor(at_once) as threads:
            done = [threads.submit(work.all) for _ in range(at_once)]
            try:
                # The first error, or an interrupt, ends the others.
                for one in wait(done, return_when=FIRST_EXCEPTION).done:
                    one.result()
            except BaseException:
                work.over.set()
                elsewhere.stop()
                raise


class _Work:
    """What is left of a plan. Several threads may do it together, as several processes may."""

    def __init__(self, plan: Strategy, study: Study, train: Train, budget: Budget | None, bar: Any) -> None:
        self._plan, self._study, self._train, self._budget, self._bar = plan, study, train, budget, bar
        self._one_writes = threading.Lock()
        # Once something has failed.
        self.over = threading.Event()

    def all(self) -> None:
        """Until nothing is left, or it is over."""
        study, budget = self._study, self._budget
        while not self.over.is_set():
            results = scores_of(study.finished())
            stage = self._plan.stage(results)
            with self._one_writes:
                if not stage:
                    self._bar.update(self._bar.total - self._bar.n)
                    return
                self._bar.n = sum(cell in results for cell in cells_of(self._plan, results))
            cell = study.do_one(stage, self._train, budget.fits if budget else always)
            if cell is not None:
                which = cell.way if len(cell.masks) == 1 else f"{len(cell.masks)} masks {cell.settings}".rstrip()
                score = study.finished()[cell].score
                with self._one_writes:
                    self._bar.set_postfix_str(f"{which} seed {cell.seed}: {score:.4f}")
            elif budget and not set(stage) & study.taken() - study.finished().keys():
                # Nothing of it is under way elsewhere.
                return
            else:
                self.over.wait(PATIENCE)


def _record(run: TrainingRun, component: str) -> dict[str, Any]:
    numbers = {name: value for name, value in run.scores.items() if isinstance(value, int | float)}
    # The transformer's own is the size of its gradients.
    loss = sum(value for name, value in run.losses.items() if name != component)
    return {"curve": run.curve, "seconds": round(run.seconds, 1), "scores": numbers, "loss": loss}


def _threshold(nlp: Language) -> float | None:
    """From where on a class counts in a pipeline whose classes do not exclude each other; None where they do."""
    for name in nlp.pipe_names:
        if nlp.get_pipe_meta(name).factory == "textcat_multilabel":
            pipe: Any = nlp.get_pipe(name)
            return float(pipe.cfg["threshold"])
    return None


def scores_of(results: dict[Cell, Finished]) -> Results:
    """As strategies see them."""
    return {cell: finished.by_way for cell, finished in results.items()}


def shared_rows(results: dict[Cell, Finished], ways: Sequence[str], seeds: Sequence[int], steps: int) -> list[Row]:
    """The table of the shared trainings of all ways; empty where they were not done. Seconds are those of all
    together."""
    plan = Shared(ways, seeds, steps)
    if len(ways) < 2 or any(cell not in results for cell in plan.cells):
        return []
    seconds = sum(results[cell].record["seconds"] for cell in plan.cells)
    scores = scores_of(results)
    return [Row(way, steps, plan.scores(way, scores), seconds, []) for way in ways]


def rows_of(results: dict[Cell, Finished], ways: Sequence[str], seeds: Sequence[int]) -> list[Row]:
    """The table of a search, longest trainings first.

    ways (Sequence[str]): In this order; others that the storage holds follow.
    """
    rows = []
    own = [cell for cell in results if len(cell.masks) == 1]
    lengths = sorted({cell.steps for cell in own}, reverse=True)
    order = [*ways, *sorted({cell.way for cell in own} - set(ways))]
    for steps in lengths:
        for way in order:
            found = [results[cell] for seed in seeds if (cell := Cell.of(way, seed, steps)) in results]
            if found:
                rows.append(
                    Row(
                        way,
                        steps,
                        [one.score for one in found],
                        sum(one.record["seconds"] for one in found),
                        [one.record["curve"] for one in found],
                    )
                )
    return rows


def on_test(
    subject: Subject,
    way: str,
    seeds: Sequence[int],
    test: Path,
    score: str,
    folder: Path,
    train: Train | None = None,
) -> Tested:
    """Score the models of a way's full trainings on a test set.

    folder (Path): Where the trainings have left them.
    train (Callable | None): Trains again what is not there; None: as `trainer` does on the CPU.
    """
    scores, counts = [], []
    for seed in seeds:
        cell = Cell.of(way, seed, subject.steps)
        place = model_folder(folder, cell)
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name(f"{place.name}.lock")):
            if not place.is_dir():
                # Trained on another machine, or removed.
                (train or trainer(subject, folder))(cell)
        nlp = load_model(place / DIR_MODEL_BEST)
        examples = list(Corpus(test)(nlp))
        # nlp.evaluate would annotate copies, and there would be nothing to count.
        for example, doc in zip(examples, nlp.pipe([example.predicted for example in examples]), strict=True):
            example.predicted = doc
        scores.append(float(Scorer(nlp).score(examples)[score]))
        count = counts_for(score, _threshold(nlp))
        if count is not None:
            counts.append([count(example) for example in examples])
    return Tested(way, scores, np.array(counts) if counts else None)
