"""The config that a search varies: it gives the config of each training, and is checked before the first one."""

import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.schemas import ConfigSchemaTraining
from spacy.training import Corpus, Example
from spacy.training.initialize import init_nlp
from spacy.training.loop import DIR_MODEL_LAST
from spacy.util import registry, resolve_dot_names
from thinc.api import Config

from ..backbone import BaseSettings, unmasks
from ..backbone.base_config import read_config
from ..backbone.fingerprint import fingerprint
from ..backbone.location import resolve_folder
from ..errors import SettingError
from ..files import digest, new_folder
from ..pipeline.config_blocks import billm_blocks, find_transformer
from ..training.quiet_run import TrainingRun, run_training
from .training import Training
from .ways import settings_of

Reader = Callable[[Language], Iterable[Example]]
# The names of numbers of steps in thinc's schedules.
LENGTHS = {"warmup_steps", "total_steps", "num_steps", "steps", "period"}
# How many examples of the development set are scored to see whether all scores exist.
SAMPLE = 4


def _shorten(schedule: Any, share: float) -> None:
    """Scale the lengths in a schedule and in the schedules inside it."""
    if isinstance(schedule, dict):
        for key, value in schedule.items():
            if key in LENGTHS and type(value) is int:
                schedule[key] = max(1, round(value * share))
            _shorten(value, share)


def _digest(path: Path) -> str | None:
    """The digest of a corpus's content, wherever the corpus is stored; None if there is no such file or folder."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        parts = [f"{file.relative_to(path).as_posix()} {_digest(file)}" for file in files]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    if not path.is_file():
        return None
    return digest(path)


def _without_paths(corpora: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Separate the settings of the corpora from their paths.

    A corpus may have another path on another machine.
    """
    settings = {name: {k: v for k, v in block.items() if k != "path"} for name, block in corpora.items()}
    return settings, {f"corpora.{name}": block["path"] for name, block in corpora.items() if block.get("path")}


@dataclass(frozen=True)
class Experiment:
    """The config that is searched, with what a search needs to know about it. Create one with `Experiment.of`.

    config (Config): The complete config, not interpolated.
    component (str): The name of its billm_transformer.
    n_layers (int): The number of layers that the config uses: those of the base, or `depth` of them.
    steps (int): The steps of a training in full.
    base (Path): The folder of the base.
    """

    config: Config
    component: str
    n_layers: int
    steps: int
    base: Path

    @classmethod
    def of(cls, config: Config, component: str | None = None) -> "Experiment":
        """Create the experiment of a config.

        component (str | None): The name of the billm_transformer; needed if there are several.
        RAISES (ValueError): The config has no billm_transformer or no number of steps, limits the epochs, or its base
            cannot be read.
        """
        plain = config.interpolate()
        name, block = find_transformer(plain, component)
        steps = plain["training"]["max_steps"]
        if not steps or steps < 1:
            raise SettingError(
                f"training.max_steps = {steps!r}: a search compares trainings of the same length, so it needs a number "
                f"of steps. Set it, for example with --training.max_steps 1000."
            )
        epochs = plain["training"].get("max_epochs") or 0
        if epochs > 0:
            raise SettingError(
                f"training.max_epochs = {epochs}: a search compares trainings of the same length, and this limit might "
                f"end some before they are scored. Set it to 0: training.max_steps ends them."
            )
        model = block["model"]
        base = BaseSettings(name=model["name"], revision=model.get("revision"), depth=model.get("depth"))
        folder = resolve_folder(base.name, base.revision)
        return cls(config, name, read_config(folder, base).num_hidden_layers, steps, folder)

    @property
    def heaviest_score(self) -> str:
        """The name of the score with the highest weight in the choice of the best model."""
        weights = self.config.interpolate()["training"]["score_weights"]
        return max(weights, key=lambda name: weights[name] or 0.0)

    @property
    def identity(self) -> dict[str, Any]:
        """What a result depends on, besides the training itself: digests of the settings, the corpora and the base.

        Two searches may share a storage or a folder only if these agree.
        """
        plain = self.config.interpolate()
        identity: dict[str, Any] = {"base": fingerprint(self.base)}
        if len(billm_blocks(plain)) > 1:
            identity["component"] = self.component
        corpora, contents = _without_paths(plain.get("corpora", {}))
        sections = {name: plain.get(name, {}) for name in ("nlp", "components", "training", "initialize")}
        for section, content in {**sections, "corpora": corpora}.items():
            identity[section] = hashlib.sha256(Config({section: content}).to_str().encode()).hexdigest()
        for name, path in {**contents, **plain.get("paths", {})}.items():
            if path and (digest := _digest(Path(path))):
                identity[f"paths.{name}"] = digest
        return identity

    def config_of(self, training: Training) -> Config:
        """The config of a training.

        The schedule of the learning rate shrinks with the number of steps, and a short training is scored at its end.
        The base is stored by reference, since a search keeps many models.
        """
        config, plain = self.config.copy(), self.config.interpolate()
        model, section = config["components"][self.component]["model"], plain["training"]
        varied = settings_of(training.way)
        model.update(varied)
        # The interpolated section, since numbers in it are changed that may be variables.
        config["training"] = section
        model["unmask"], model["store_base"] = training.mask, "reference"
        config["system"]["seed"] = section["seed"] = training.seed
        share = training.steps / self.steps
        section["max_steps"] = training.steps
        if training.steps < self.steps or section["eval_frequency"] > training.steps:
            # Evaluate at the end only: the learning rate has come down only there, and evaluations would take longer
            # than a short training. A training shorter than the distance between two evaluations would have none after
            # its first step. spaCy counts patience from the evaluation before that step, so it is switched off.
            section["eval_frequency"] = training.steps
            section["patience"] = 0
        for setting in ("heads_first", "unmask_warmup"):
            if updates := varied.get(setting, plain["components"][self.component]["model"].get(setting)):
                model[setting] = round(updates * share)
        if not unmasks(training.mask):
            model["unmask_warmup"] = 0
        _shorten(section["optimizer"].get("learn_rate"), share)
        return config

    @property
    def model(self) -> dict[str, Any]:
        """The settings of the model, as in the config."""
        settings: dict[str, Any] = self.config.interpolate()["components"][self.component]["model"]
        return settings

    def corpora(self) -> tuple[Reader, Reader]:
        """The readers of the training corpus and of the development corpus."""
        plain = self.config.interpolate()
        training: dict[str, Any] = registry.resolve(plain["training"], schema=ConfigSchemaTraining)
        train, dev = resolve_dot_names(plain, [training["train_corpus"], training["dev_corpus"]])
        return train, dev

    def check_scores(self, test: Path | None = None) -> None:
        """Check, without training, that the best model can be chosen.

        There has to be a development set, and the pipeline has to compute the scores by which the model is chosen: a
        weight on a score that no component computes would count as 0.

        test (Path | None): The corpus on which the chosen way is scored after the search.
        RAISES (SettingError): A score is missing, or a corpus has nothing that can be scored.
        """
        plain = self.config.interpolate()
        weights = {name: weight for name, weight in plain["training"]["score_weights"].items() if weight}
        if not weights:
            raise SettingError(
                "training.score_weights gives no score a weight, so no best model can be chosen. Give one a weight "
                "above 0."
            )
        nlp = init_nlp(self.config_of(Training("none", 0, 1)))
        _, dev = self.corpora()
        named = f"the development corpus {plain['training']['dev_corpus']!r}"
        scores = _scores_on(dev, nlp, weights)
        if scores is None:
            raise SettingError(f"{named} is empty.")
        missing = sorted(set(weights) - set(scores))
        if missing:
            raise SettingError(
                f"training.score_weights names {missing[0]!r}, which the pipeline does not compute. It computes: "
                f"{', '.join(sorted(scores))}."
            )
        if all(scores[name] is None for name in weights):
            raise SettingError(
                f"{named} has no annotation that {' or '.join(weights)} could be computed from, so no best model can "
                f"be chosen."
            )
        if test is not None:
            self._check_test(nlp, test)

    def _check_test(self, nlp: Language, test: Path) -> None:
        """Refuse a test corpus without gold annotation, which would have no score."""
        score = self.heaviest_score
        scores = _scores_on(Corpus(test), nlp, [score])
        if scores is not None and scores.get(score) is not None:
            return
        raise SettingError(
            f"the test corpus {str(test)!r} has no annotation that {score} could be computed from. Give a .spacy file "
            f"with the gold annotation, such as spacy convert and spacy lsbillm convert write."
        )

    def run(self, training: Training, folder: Path, use_gpu: int) -> TrainingRun:
        """Run a training. The best model of a training in full is kept.

        folder (Path): The folder for `model-best`. It exists only once the training has finished; files that a killed
            training left are removed.
        """
        if training.steps < self.steps:
            return run_training(self.config_of(training), None, use_gpu)
        shutil.rmtree(folder, ignore_errors=True)
        with new_folder(folder) as partial:
            run = run_training(self.config_of(training), partial, use_gpu)
            shutil.rmtree(partial / DIR_MODEL_LAST)
        return run


def _scores_on(corpus: Reader, nlp: Language, names: Iterable[str]) -> dict[str, Any] | None:
    """Score a few documents, which usually tell whether a corpus is annotated, or all if these have no named score.

    RETURNS (dict | None): All scores; None if there are no documents.
    """
    scores = None
    for limit in (SAMPLE, None):
        examples = list(islice(corpus(nlp), limit))
        scores = nlp.evaluate(examples) if examples else None
        if scores is None or any(scores.get(name) is not None for name in names):
            break
    return scores


def check_dev_corpus(config: Config) -> None:
    """Check that the config names a development corpus that exists.

    RAISES (SettingError): The config names none, or there is no such file or folder.
    """
    plain = config.interpolate()
    name = plain["training"].get("dev_corpus")
    block = plain
    for part in (name or "").split("."):
        block = block.get(part) or {}
    if not block or ("path" in block and not block["path"]):
        raise SettingError(
            "the config has no development corpus, which is needed to choose the best way. Name one, for example with "
            "--paths.dev corpus/dev.spacy."
        )
    path = block.get("path")
    if path and not Path(path).exists():
        raise SettingError(f"there is no development corpus {str(path)!r}.")
