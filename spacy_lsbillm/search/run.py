"""A search from beginning to end: trials until the strategy is done, then the test set, once."""

import time
from collections.abc import Callable, Sequence
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

from ..training_run import TrainingRun
from .extension import Extension, extension_test
from .shared import train_shared
from .significance import Difference, counts_for, paired_bootstrap
from .space import Cell, file_name, same_layers
from .strategies import Grid, Results, Shared, Strategy, cells_of
from .study import Finished, Study
from .trials import Subject

MODELS = "models"
# Seconds between looks at what other processes are doing.
PATIENCE = 2.0
BASELINES = ("none", "all")


@dataclass(frozen=True)
class Row:
    """A mask's scores at one length of training.

    mask (str), steps (int): Which.
    scores (list[float]): One a seed, on the development set.
    seconds (float): Of all its trainings.
    curves (list[list[tuple[int, float]]]): One a seed: step and score.
    """

    mask: str
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
    """What the test set says of a mask.

    mask (str): Which.
    scores (list[float]): One a seed.
    counts (ndarray | None): True and false positives and false negatives, shape (seeds, documents, 3).
    """

    mask: str
    scores: list[float]
    counts: np.ndarray | None


@dataclass(frozen=True)
class Outcome:
    """A finished search.

    chosen (str): The mask that the development set chose.
    rows (list[Row]): All masks that had a training of their own, at each length.
    shared (list[Row]): All masks as the shared trainings score them; empty where there were none.
    steps (int): Of the trainings by which the mask was chosen, together, those of a prediction counted.
    grid_steps (int): Of the full grid over all masks that were considered, with the same seeds.
    tested (list[Tested]): The chosen mask, "none" and "all"; empty without a test set.
    differences (dict): Of the chosen mask to each of the others, on the test set.
    extension (Extension | None): Of the masks that were trained in full, on the development set: whether it helps to
        unmask more towards the output; None where only some were, or no pairs could tell.
    """

    chosen: str
    rows: list[Row]
    shared: list[Row]
    steps: int
    grid_steps: int
    tested: list[Tested]
    differences: dict[str, Difference]
    extension: Extension | None = None


def search(
    subject: Subject,
    strategy: Strategy,
    study: Study,
    folder: Path,
    *,
    masks: Sequence[str],
    seeds: Sequence[int],
    test: Path | None = None,
    score: str | None = None,
    use_gpu: int = -1,
    spent: int = 0,
    considered: int | None = None,
) -> Outcome:
    """Run a search, or go on with one.

    folder (Path): Models of full trainings are kept in it.
    masks (Sequence[str]): The masks that the strategy is about, in the order of the table.
    test (Path | None): The test corpus, which is looked at once, in the end.
    score (str | None): The score on it; None: the one with the highest weight in the config.
    spent (int): Steps of training by which these masks were chosen from others before.
    considered (int | None): How many masks those were, together with these; None: there were no others.
    """
    train = trainer(subject, folder, use_gpu)
    run_all(strategy, study, train, "trainings")
    tested: list[Tested] = []
    if test is not None:
        compared = compared_on_test(strategy.chosen(scores_of(study.finished())), masks, subject)
        run_all(Grid(compared, seeds, subject.steps), study, train, "trainings for the test")
        name = score or subject.heaviest_score
        tested = [on_test(subject, mask, seeds, test, name, folder, use_gpu) for mask in compared]
    return outcome_of(
        subject, strategy, study.finished(), tested, masks=masks, seeds=seeds, spent=spent, considered=considered
    )


def compared_on_test(chosen: str, masks: Sequence[str], subject: Subject) -> list[str]:
    """The chosen mask and the baselines, as they are called among the masks of a search."""
    compared = [chosen]
    for baseline in BASELINES:
        same = same_layers(baseline, [*compared, *masks], subject.n_layers) or baseline
        if same not in compared:
            compared.append(same)
    return compared


def outcome_of(
    subject: Subject,
    strategy: Strategy,
    results: dict[Cell, Finished],
    tested: list[Tested],
    *,
    masks: Sequence[str],
    seeds: Sequence[int],
    spent: int = 0,
    considered: int | None = None,
) -> Outcome:
    """What a finished search has found.

    results (dict): Its trainings, and whatever else the storage holds.
    tested (list[Tested]): The chosen mask first.
    masks (Sequence[str]), seeds (Sequence[int]), spent (int), considered (int | None): See `search`.
    """
    scores = scores_of(results)
    first = tested[0].counts if tested else None
    differences = {
        one.mask: paired_bootstrap(first, one.counts)
        for one in tested[1:]
        if first is not None and one.counts is not None
    }
    rows = rows_of(results, masks, seeds)
    full = {row.mask: row.scores for row in rows if row.steps == subject.steps and len(row.scores) == len(seeds)}
    # Masks that were trained because they had looked best on dev say nothing of the others.
    all_trained = considered is None and full.keys() >= set(masks)
    return Outcome(
        strategy.chosen(scores),
        rows,
        shared_rows(results, masks, seeds, subject.steps),
        spent + sum(cell.steps for cell in cells_of(strategy, scores)),
        subject.steps * (considered or len(masks)) * len(seeds),
        tested,
        differences,
        extension_test(full, subject.n_layers) if all_trained else None,
    )


def trainer(subject: Subject, folder: Path, use_gpu: int = -1) -> Callable[[Cell], tuple[float, dict[str, Any]]]:
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
    return folder / MODELS / file_name(cell.mask) / f"{cell.seed}-{cell.steps}"


def run_all(plan: Strategy, study: Study, train: Callable[[Cell], tuple[float, dict[str, Any]]], label: str) -> None:
    """Do what a strategy asks for until it asks for nothing more, or others have done it.

    train (Callable): See `trainer`.
    label (str): Of the progress bar.
    """
    with tqdm(total=plan.trials, desc=label, unit=" trainings", smoothing=0.1) as bar:
        while True:
            results = scores_of(study.finished())
            stage = plan.stage(results)
            if not stage:
                bar.update(bar.total - bar.n)
                return
            bar.n = sum(cell in results for cell in cells_of(plan, results))
            cell = study.do_one(stage, train)
            if cell is None:
                # What is left is under way elsewhere.
                time.sleep(PATIENCE)
            else:
                which = cell.mask if len(cell.masks) == 1 else f"{len(cell.masks)} masks"
                bar.set_postfix_str(f"{which} seed {cell.seed}: {study.finished()[cell].score:.4f}")


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
    return {cell: finished.by_mask for cell, finished in results.items()}


def shared_rows(results: dict[Cell, Finished], masks: Sequence[str], seeds: Sequence[int], steps: int) -> list[Row]:
    """The table of the shared trainings of all masks; empty where they were not done. Seconds are those of all masks
    together."""
    cells = Shared(masks, seeds, steps).cells
    if len(masks) < 2 or any(cell not in results for cell in cells):
        return []
    found = [results[cell] for cell in cells]
    seconds = sum(one.record["seconds"] for one in found)
    return [Row(mask, steps, [one.by_mask[mask] for one in found], seconds, []) for mask in masks]


def rows_of(results: dict[Cell, Finished], masks: Sequence[str], seeds: Sequence[int]) -> list[Row]:
    """The table of a search, longest trainings first.

    masks (Sequence[str]): In this order; others that the storage holds follow.
    """
    rows = []
    own = [cell for cell in results if len(cell.masks) == 1]
    lengths = sorted({cell.steps for cell in own}, reverse=True)
    order = [*masks, *sorted({cell.mask for cell in own} - set(masks))]
    for steps in lengths:
        for mask in order:
            found = [results[cell] for seed in seeds if (cell := Cell(mask, seed, steps)) in results]
            if found:
                rows.append(
                    Row(
                        mask,
                        steps,
                        [one.score for one in found],
                        sum(one.record["seconds"] for one in found),
                        [one.record["curve"] for one in found],
                    )
                )
    return rows


def on_test(
    subject: Subject, mask: str, seeds: Sequence[int], test: Path, score: str, folder: Path, use_gpu: int = -1
) -> Tested:
    """Score the models of a mask's full trainings on a test set.

    folder (Path): Where the trainings have left them.
    """
    scores, counts = [], []
    for seed in seeds:
        cell = Cell(mask, seed, subject.steps)
        place = model_folder(folder, cell)
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name(f"{place.name}.lock")):
            if not place.is_dir():
                # Trained on another machine, or removed.
                subject.run(cell, place, use_gpu)
        nlp = load_model(place / DIR_MODEL_BEST)
        examples = list(Corpus(test)(nlp))
        # nlp.evaluate would annotate copies, and there would be nothing to count.
        for example, doc in zip(examples, nlp.pipe([example.predicted for example in examples]), strict=True):
            example.predicted = doc
        scores.append(float(Scorer(nlp).score(examples)[score]))
        count = counts_for(score, _threshold(nlp))
        if count is not None:
            counts.append([count(example) for example in examples])
    return Tested(mask, scores, np.array(counts) if counts else None)
