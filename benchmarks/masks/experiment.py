"""The experiment on one data set: run the missing trainings, and collect all results in one file."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from spacy.tokens import DocBin
from tqdm import tqdm

from spacy_lsbillm.files import read_or_make
from spacy_lsbillm.search.experiment import Experiment
from spacy_lsbillm.search.first_steps import first_steps
from spacy_lsbillm.search.masks import all_masks, check_masks
from spacy_lsbillm.search.on_test import scores_on_test, ways_to_test
from spacy_lsbillm.search.one_shot import one_shot
from spacy_lsbillm.search.outcome import ScoresOnTest, scores_of
from spacy_lsbillm.search.page import as_html
from spacy_lsbillm.search.prediction import Prediction
from spacy_lsbillm.search.probe import probe
from spacy_lsbillm.search.run import outcome_of, run_all
from spacy_lsbillm.search.strategies import Greedy, Grid, Halving, Strategy, trainings_of
from spacy_lsbillm.search.study import Study, claim_folder
from spacy_lsbillm.search.trainer import trainer
from spacy_lsbillm.search.training import Training
from spacy_lsbillm.search.ways import file_name

from ..record import circumstances, config_text
from ..tasks.models import BASE, SCORE, Budget, Compared, make_config
from ..tasks.sets import SETS, prepare
from .analysis import Chosen, analyse


@dataclass(frozen=True)
class Settings:
    """The settings that results depend on, besides the data set.

    base (str): The base.
    groups (int): The number of groups of layers, of equal size.
    seeds (tuple[int, ...]): The seeds; each gives one training per mask.
    examples (int), dev (int), test (int): The maximum number of examples in each split, 0 for all.
    epochs (int): The epochs of a full training.
    share (float): The share of a full training's steps that the predictors with short trainings take.
    """

    base: str = BASE
    groups: int = 4
    seeds: tuple[int, ...] = (0, 1, 2)
    examples: int = 1500
    dev: int = 500
    test: int = 0
    epochs: int = 4
    share: float = 0.1

    @property
    def name(self) -> str:
        """The name of the folder of results that may be compared with each other."""
        size = "-".join(str(number or "all") for number in (self.examples, self.dev, self.test))
        seeds = "+".join(map(str, self.seeds))
        return f"{size}-examples-{self.epochs}-epochs-{self.groups}-groups-seeds-{seeds}-share-{self.share:g}"


def run_set(name: str, settings: Settings, data: Path, work: Path) -> tuple[dict[str, Any], str]:
    """Do what is missing for a data set.

    data (Path): The folder of data sets.
    work (Path): A folder for trainings and interim results.
    RETURNS (tuple[dict, str]): The content of the result file, and the page that `search` would write.
    """
    limits = {"train": settings.examples, "dev": settings.dev, "test": settings.test}
    paths = prepare(name, data, work / "data", limits)
    sizes = {split: len(DocBin().from_disk(path)) for split, path in paths.items()}
    kind, seeds = SETS[name].kind, settings.seeds
    corpora = {split: str(paths[split]) for split in ("train", "dev")}
    model = Compared("", base=settings.base, unmask="none")
    # Always full batches: the sets compared here have more than 25 of them per epoch.
    budget = Budget(epochs=settings.epochs, steps=1)
    config = make_config(model, kind, corpora, sizes["train"], budget, seed=0)
    experiment = Experiment.of(config)
    masks = all_masks(settings.groups)
    check_masks(masks, experiment.n_layers)
    experiment.check_scores()
    place = work / settings.name / name
    place.mkdir(parents=True, exist_ok=True)
    study = Study(f"sqlite:///{place / 'search.db'}", experiment.identity)
    claim_folder(place, experiment.identity)
    train = trainer(experiment, place)

    grid = Grid(masks, seeds, experiment.steps)
    run_all(grid, study, train, f"{name}: grid")
    # These strategies use the grid's trainings, so they differ from it only in their choice.
    strategies: dict[str, Strategy] = {
        "halving": Halving(masks, seeds, experiment.steps),
        "greedy": Greedy(settings.groups, seeds, experiment.steps),
    }
    for label, strategy in strategies.items():
        run_all(strategy, study, train, f"{name}: {label}")
    finished = study.results()
    scores = scores_of(finished)
    cheaper = {
        label: Chosen(strategy.best(scores), sum(training.steps for training in trainings_of(strategy, scores)))
        for label, strategy in strategies.items()
    }
    predictions = predict(experiment, masks, seeds, study, place, settings.share)
    tested = score_on_test(experiment, masks, seeds, paths["test"], SCORE[kind], place)
    dev = {mask: [finished[Training(mask, seed, experiment.steps)].score for seed in seeds] for mask in masks}
    outcome = outcome_of(
        experiment,
        grid,
        finished,
        [tested[mask] for mask in ways_to_test(grid.best(scores), masks, experiment)],
        ways=masks,
        seeds=seeds,
    )
    about = {
        "settings": asdict(settings),
        "split": {"sizes": sizes, "limits": limits, "source": SETS[name].folder},
        "seeds": list(seeds),
        "base": {"name": settings.base, "fingerprint": experiment.identity["base"]},
        **circumstances(),
    }
    found = {
        "set": name,
        "metric": SCORE[kind],
        "masks": masks,
        "layers": experiment.n_layers,
        "steps": experiment.steps,
        "dev": dev,
        "test": {mask: tested[mask].scores for mask in masks},
        **analyse(dev, tested, cheaper, predictions, experiment.n_layers, experiment.steps),
        "seconds": {row.way: row.seconds for row in outcome.rows if row.steps == experiment.steps},
        "config": config_text(config),
        **about,
    }
    return found, as_html(outcome, experiment, {"config": name, **about})


def predict(
    experiment: Experiment, masks: list[str], seeds: tuple[int, ...], study: Study, place: Path, share: float
) -> list[Prediction]:
    """Run all predictors. The two that train briefly share their trainings."""
    return [
        probe(experiment, masks, place),
        one_shot(experiment, masks, seeds, study, place),
        first_steps(experiment, masks, seeds, study, place, share=share),
        first_steps(experiment, masks, seeds, study, place, share=share, by_loss=True),
    ]


def score_on_test(
    experiment: Experiment, masks: list[str], seeds: tuple[int, ...], test: Path, score: str, place: Path
) -> dict[str, ScoresOnTest]:
    """The scores on the test set under every mask, for the analysis and never for a choice."""
    with tqdm(total=len(masks), desc="masks on the test set", unit=" masks") as bar:

        def run(mask: str) -> dict[str, Any]:
            tested = scores_on_test(experiment, mask, seeds, test, score, place)
            bar.update()
            counts = None if tested.counts is None else tested.counts.tolist()
            return {"scores": tested.scores, "counts": counts}

        # The name of the corpus contains its limit, so a corpus with another limit is scored again.
        folder = place / "tested" / test.stem
        found = read_or_make({folder / f"{file_name(mask)}.json": partial(run, mask) for mask in masks})
    return {
        mask: ScoresOnTest(mask, one["scores"], None if one["counts"] is None else np.array(one["counts"]))
        for mask, one in zip(masks, found, strict=True)
    }
