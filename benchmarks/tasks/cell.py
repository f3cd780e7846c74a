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
from filelock import Timeout
from spacy.tokens import DocBin
from spacy.training import Corpus
from spacy.training.loop import DIR_MODEL_BEST
from thinc.api import Config, NumpyOps, set_current_ops
from tqdm import tqdm

from spacy_lsbillm.backbone import fingerprint, read_record
from spacy_lsbillm.pipeline.config_blocks import find_transformer
from spacy_lsbillm.training.quiet_run import run_training

from ..record import circumstances, config_text, portable_name
from ..store import SUFFIX, Store
from .models import ALL_MODELS, OURSELVES, SCORE, STOCK, Budget, Cell, Compared, Tuned, lora_of, make_config
from .price import print_cost
from .sets import SETS, prepare
from .written import run_written


@dataclass(frozen=True)
class Run:
    """What the cells of a table have in common.

    data (Path): The folder of data sets.
    work (Path): A folder for prepared data and unfinished trainings.
    results (Path): Where results are stored: a folder, or one file for all of them if its name ends in .jsonl.
    limits (dict): The maximum number of examples in each split, 0 for all.
    budget (Budget): The epochs and batches of each training.
    with_test (bool): Whether to score on the test set as well. False where settings are chosen.
    models (Mapping): The models that are compared, by name.
    device (str | None): The device of the base, as in the setting of that name; None for the CPU.
    """

    data: Path
    work: Path
    results: Path
    limits: dict[str, int]
    budget: Budget
    with_test: bool = True
    models: Mapping[str, Compared] = field(default_factory=lambda: ALL_MODELS)
    device: str | None = None

    @property
    def store(self) -> Store:
        """The store of the results that may be compared with each other."""
        path = self.results
        if path.suffix != SUFFIX:
            train, dev = (self.limits[split] or "all" for split in ("train", "dev"))
            test = f"-{self.limits['test']}-test" if self.limits["test"] else ""
            path = path / f"{train}-examples-{self.budget.epochs}-epochs-{dev}-dev{test}{SUFFIX}"
        return Store(path, self.work / "locks")

    def prepared(self, set_name: str) -> dict[str, Path]:
        """The paths of a data set's splits as .spacy files."""
        return prepare(set_name, self.data, self.work / "data", self.limits)

    def cells(self, cells: Sequence[tuple[str, str, int]]) -> None:
        """Run the cells, given as data set, model and seed, that have no result yet."""
        self.run([Cell(f"{name}/{model}/{seed}", name, model, seed, self.models[model]) for name, model, seed in cells])

    def run(self, cells: Sequence[Cell]) -> None:
        """Print what the cells without a result will cost, then run them. Several processes may work on one table."""
        todo = [cell for cell in cells if self.store.read(cell.name) is None]
        elsewhere = sorted({cell.model_name for cell in todo if not follows_device(cell.model)})
        if self.device is not None and elsewhere:
            raise SystemExit(
                f"--device {self.device} is not for {', '.join(elsewhere)}, which would stay on the CPU: run them "
                f"without it, or leave them out."
            )
        paths = {name: self.prepared(name) for name in {cell.set_name for cell in todo}}
        if self.device is None:
            print_cost(todo, paths, self.budget, self.with_test)
        for cell in tqdm(cells, unit=" cells"):
            self.cell(cell)

    def cell(self, cell: Cell) -> None:
        """Run one cell, unless it has a result or another process is running it."""
        store = self.store
        with suppress(Timeout), store.lock(cell.name):
            before = store.read(cell.name)
            if before is not None:
                check_made_with(before, store.where(cell.name), cell.model, self)
                return
            # A killed run leaves a folder that would be in the way.
            unique = hashlib.sha256(store.where(cell.name).encode()).hexdigest()[:8]
            folder = self.work / "runs" / f"{cell.set_name}-{cell.model_name}-{cell.seed}-{unique}"
            shutil.rmtree(folder, ignore_errors=True)
            found = run_cell(self, cell, folder)
            store.write(cell.name, found)
            shutil.rmtree(folder, ignore_errors=True)
            scores = ", ".join(f"{split} {found[split]:.4f}" for split in ("dev", "test") if split in found)
            tqdm.write(f"{cell.name}: {scores}, {found['core_seconds'] / 60:.1f} core-minutes")


def follows_device(model: Compared) -> bool:
    """Whether `--device` decides where a model is: a base under this project, or one that writes its answers."""
    return model.base is not None and (model.answer is not None or model.library == OURSELVES)


def check_made_with(found: dict[str, Any], where: str, model: Compared, run: Run) -> None:
    """Check that a result was made with the settings and the base of this run.

    RAISES (SystemExit): It was made with others.
    """
    limits = dict(run.limits) if run.with_test else {**run.limits, "test": found["split"]["limits"]["test"]}
    expected: dict[str, Any] = {
        "tuned": vars(model.tuned),
        "base": None,
        "examples": limits,
        "epochs": run.budget.epochs,
    }
    made_with: dict[str, Any] = {
        "tuned": vars(Tuned(**found["tuned"])),
        "base": found["base"] and found["base"]["fingerprint"],
        "examples": found["split"]["limits"],
        "epochs": found["budget"]["epochs"],
    }
    if model.base is not None and (model.answer is not None or model.library == STOCK):
        expected["base"] = fingerprint(Path(model.base))
    elif model.base is not None:
        expected |= {"base": fingerprint(Path(model.base)), "unmask": model.unmask, "depth": model.depth}
        expected["lora"] = lora_of(model)
        expected |= {"repeat": model.repeat, "gradual unmasking": model.unmask_rounds > 0}
        _, transformer = find_transformer(Config().from_str(found["config"], interpolate=False))
        made_with |= {name: transformer["model"].get(name) for name in ("unmask", "depth", "lora")}
        made_with["repeat"] = transformer["model"].get("repeat", 0)
        made_with["gradual unmasking"] = transformer["model"].get("unmask_warmup", 0) > 0
    for what, now in expected.items():
        if made_with[what] != now:
            raise SystemExit(
                f"{where} was made with {what} = {made_with[what]}, which is now {now}: remove it, or name another "
                f"place with --results."
            )


def run_cell(run: Run, cell: Cell, folder: Path) -> dict[str, Any]:
    """Train and score one cell.

    folder (Path): A folder for the training. It is not removed.
    RETURNS (dict): The result as it is stored.
    """
    model, kind = cell.model, SETS[cell.set_name].kind
    paths = run.prepared(cell.set_name)
    sizes = {split: len(DocBin().from_disk(path)) for split, path in paths.items()}
    used = time.process_time()
    if model.answer is not None and model.base is not None:
        own = run_written(model, kind, paths, run.budget, cell.seed, folder, run.device) | {
            "base": _unchanged(model.base)
        }
    else:
        own = _run_pipeline(run, cell, paths, sizes["train"], folder)
    return {
        "set": cell.set_name,
        "model": cell.model_name,
        "seed": cell.seed,
        "kind": kind,
        "metric": SCORE[kind],
        "split": {"sizes": sizes, "limits": run.limits, "source": SETS[cell.set_name].folder},
        "budget": vars(run.budget),
        "tuned": vars(model.tuned),
        "library": model.library,
        **own,
        **circumstances(run.device),
        # Processor time of all threads: what a cell costs, whatever else runs on the machine.
        "core_seconds": round(time.process_time() - used, 1),
    }


def _unchanged(base: str) -> dict[str, Any]:
    return {"name": portable_name(base), "fingerprint": fingerprint(Path(base))}


def _run_pipeline(run: Run, cell: Cell, paths: dict[str, Path], n_examples: int, folder: Path) -> dict[str, Any]:
    """Train a pipeline, choose its best epoch on dev, and score that on test."""
    model, kind = cell.model, SETS[cell.set_name].kind
    corpora = {split: str(paths[split]) for split in ("train", "dev")}
    config = make_config(model, kind, corpora, n_examples, run.budget, cell.seed, run.device)
    # The CNN mostly multiplies matrices, for which thinc's own routines are 3 to 4 times slower than numpy's.
    set_current_ops(NumpyOps(use_blis=False))
    training = run_training(config, folder)
    best = folder / DIR_MODEL_BEST
    nlp = spacy.load(best)
    base = None
    if model.base is not None and model.library == STOCK:
        base = _unchanged(model.base)
    elif model.base is not None:
        recorded = read_record(best / "transformer")["base"]
        base = {**recorded, "name": portable_name(recorded["name"])}
    found: dict[str, Any] = {
        "dev": training.score,
        "dev_by_step": training.curve,
        "train_seconds": round(training.seconds, 1),
        "base": base,
        "config": config_text(config, str(run.work), *([model.base] if model.base else [])),
    }
    if run.with_test:
        examples = list(Corpus(paths["test"])(nlp))
        begun = time.monotonic()
        scores = nlp.evaluate(examples)
        found |= {
            "test": scores[SCORE[kind]],
            "test_scores": {key: scores[key] for key in ("ents_p", "ents_r", "cats_macro_f") if key in scores},
            "test_seconds": round(time.monotonic() - begun, 2),
            "test_words": sum(len(example.reference) for example in examples),
        }
    return found
