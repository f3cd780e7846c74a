"""A cell of the table: one model trained on one data set with one seed, chosen on dev and scored on test."""

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import spacy
from filelock import FileLock, Timeout
from spacy.tokens import DocBin
from spacy.training import Corpus
from spacy.training.loop import DIR_MODEL_BEST
from thinc.api import Config, NumpyOps, set_current_ops
from tqdm import tqdm

from spacy_lsbillm.backbone import fingerprint, read_record
from spacy_lsbillm.training_config import find_transformer
from spacy_lsbillm.training_run import run_training

from ..record import called, circumstances, read_result, told, write_result
from .models import ALL_MODELS, SCORE, Budget, Compared, Tuned, lora_of, make_config
from .sets import SETS, prepare


@dataclass(frozen=True)
class Run:
    """What a table's cells have in common.

    data (Path): The folder of data sets.
    work (Path): For prepared data and trainings in progress.
    results (Path): For result files.
    limits (dict): Examples of each split at most, 0 for all.
    budget (Budget): Of each training.
    with_test (bool): Score on the test set as well; not where something is chosen.
    models (Mapping): What is compared, by name.
    """

    data: Path
    work: Path
    results: Path
    limits: dict[str, int]
    budget: Budget
    with_test: bool = True
    models: Mapping[str, Compared] = field(default_factory=lambda: ALL_MODELS)

    @property
    def folder(self) -> Path:
        """Of the results that may be compared with each other."""
        train, dev = (self.limits[split] or "all" for split in ("train", "dev"))
        return self.results / f"{train}-examples-{self.budget.epochs}-epochs-{dev}-dev"

    def cells(self, cells: Sequence[tuple[str, str, int]]) -> None:
        """Run those of a data set, a model and a seed that have no result yet."""
        for name, model, seed in tqdm(cells, unit=" cells"):
            self.cell(name, model, seed, self.folder / name / model / f"{seed}.json")

    def cell(self, name: str, model: str, seed: int, result: Path, tuned: Tuned | None = None) -> None:
        """Run one unless its result is there. Several processes may work on one table; a lock goes with the process
        that holds it.

        tuned (Tuned | None): None: what was chosen for the model.
        """
        result.parent.mkdir(parents=True, exist_ok=True)
        with suppress(Timeout), FileLock(result.with_suffix(".lock"), blocking=False):
            if result.exists():
                check_made_with(result, self.models[model], tuned)
                return
            found = run_cell(
                name,
                model,
                seed,
                models=self.models,
                data=self.data,
                work=self.work,
                limits=self.limits,
                budget=self.budget,
                result=result,
                tuned=tuned,
                with_test=self.with_test,
            )
            scores = ", ".join(f"{split} {found[split]:.4f}" for split in ("dev", "test") if split in found)
            tqdm.write(f"{name} {model} {result.stem}: {scores}")


def check_made_with(path: Path, model: Compared, tuned: Tuned | None) -> None:
    """RAISES (SystemExit): A result is of other settings or of another base than it would be now."""
    found = read_result(path)
    expected: dict[str, Any] = {"tuned": vars(tuned or model.tuned), "base": None}
    made_with: dict[str, Any] = {"tuned": vars(Tuned(**found["tuned"]))}
    made_with["base"] = found["base"] and found["base"]["fingerprint"]
    if model.base is not None:
        expected |= {"base": fingerprint(Path(model.base)), "unmask": model.unmask, "depth": model.depth}
        expected["lora"] = lora_of(model)
        _, transformer = find_transformer(Config().from_str(found["config"], interpolate=False))
        made_with |= {name: transformer["model"].get(name) for name in ("unmask", "depth", "lora")}
    for what, now in expected.items():
        if made_with[what] != now:
            raise SystemExit(
                f"{path} was made with {what} = {made_with[what]}, which is now {now}: remove it, or name another "
                f"folder with --results."
            )


def run_cell(
    set_name: str,
    model_name: str,
    seed: int,
    *,
    models: Mapping[str, Compared] = ALL_MODELS,
    data: Path,
    work: Path,
    limits: dict[str, int],
    budget: Budget,
    result: Path,
    tuned: Tuned | None = None,
    with_test: bool = True,
) -> dict[str, Any]:
    """Train, score and write the result file.

    tuned (Tuned | None): None: what was chosen for the model.
    with_test (bool): False while something is chosen.
    """
    model, kind = models[model_name], SETS[set_name].kind
    tuned = tuned or model.tuned
    paths = prepare(set_name, data, work / "data", limits)
    sizes = {split: len(DocBin().from_disk(path)) for split, path in paths.items()}
    # One a result, which one process at a time works on; what a killed one has left is in the way.
    name = hashlib.sha256(str(result.resolve()).encode()).hexdigest()[:8]
    folder = work / "runs" / f"{set_name}-{model_name}-{seed}-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    corpora = {split: str(paths[split]) for split in ("train", "dev")}
    config = make_config(model, kind, corpora, sizes["train"], budget, tuned, seed)
    # thinc's own matrix products are 3 to 4 times slower than NumpyOps with numpy's, and most of what the CNN does.
    set_current_ops(NumpyOps(use_blis=False))
    run = run_training(config, folder)
    best = folder / DIR_MODEL_BEST
    nlp = spacy.load(best)
    base = None
    if model.base is not None:
        recorded = read_record(best / "transformer")["base"]
        base = {**recorded, "name": called(recorded["name"])}
    found: dict[str, Any] = {
        "set": set_name,
        "model": model_name,
        "seed": seed,
        "kind": kind,
        "metric": SCORE[kind],
        "dev": run.score,
        "dev_by_step": run.curve,
        "train_seconds": round(run.seconds, 1),
        "split": {"sizes": sizes, "limits": limits, "source": SETS[set_name].folder},
        "budget": vars(budget),
        "tuned": vars(tuned),
        "base": base,
        "config": told(config, *([model.base] if model.base else [])),
        **circumstances(),
    }
    if with_test:
        examples = list(Corpus(paths["test"])(nlp))
        begun = time.monotonic()
        scores = nlp.evaluate(examples)
        found |= {
            "test": scores[SCORE[kind]],
            "test_scores": {key: scores[key] for key in ("ents_p", "ents_r", "cats_macro_f") if key in scores},
            "test_seconds": round(time.monotonic() - begun, 2),
            "test_words": sum(len(example.reference) for example in examples),
        }
    write_result(result, found)
    shutil.rmtree(folder)
    return found
