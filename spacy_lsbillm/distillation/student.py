"""Changing a student's training config so that it learns from a teacher."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy.util import load_config, load_model_from_config, registry
from thinc.api import Config

from ..errors import SettingError, in_short
from ..layers import LossSettings
from ..pipeline.sequence_labeler import DEFAULT_CONFIG
from ..pipeline.soft_tags import scheme_in_words
from ..tagging import Scheme
from ..training.config import MODELS
from .gold import check_dev
from .reader import HARD, NONE, SOFT
from .teacher import CLASSIFIERS, LABELER, Teacher

NER = "ner"
# The architecture of classifiers that learn from probabilities.
POOLED = "spacy-lsbillm.PooledTextCat.v1"
# The sections that spaCy does not fill in itself for training.
NEEDED = ("seed", "gpu_allocator")


@dataclass(frozen=True)
class Student:
    """A training config, and what its components learn from a teacher.

    soft (list[str]): Components that learn from probabilities.
    hard (list[str]): Components that learn from labels.
    classes (str): "soft", "hard" or "none", for the corpus reader.
    """

    config: Config
    soft: list[str]
    hard: list[str]
    classes: str


def read_student(path: Path, overrides: Mapping[str, Any], teacher: Teacher) -> Student:
    """Read a training config, and give the teacher's labels to the components that it teaches.

    overrides (Mapping): Values by their path.
    RAISES (SettingError): No component can learn from this teacher, one has other labels, the config is incomplete, or
        there are no documents to choose the best model by.
    RAISES (DataError): These documents have no annotation.
    """
    config = load_config(path, overrides=dict(overrides), interpolate=False)
    filled = config.interpolate()
    components = filled.get("components", {})
    names = [name for name in filled.get("nlp", {}).get("pipeline", ()) if name in components]
    soft: list[str] = []
    hard: list[str] = []
    given = config.setdefault("initialize", {}).setdefault("components", {})
    classes = NONE
    for name in names:
        block, factory = components[name], components[name].get("factory")
        if factory == LABELER and (scheme := teacher.tags.get(_key(block))) is not None:
            _check_labeler(name, block, scheme, _labels(filled, name))
            given.setdefault(name, {})["labels"] = list(scheme.labels)
            soft.append(name)
        elif factory == NER and "" in teacher.tags:
            hard.append(name)
        elif factory in CLASSIFIERS and CLASSIFIERS[factory] == teacher.exclusive:
            model = block.get("model", {})
            if model.get("@architectures") == POOLED:
                _check_loss(name, model)
                _check_classes(name, teacher, _labels(filled, name))
                soft.append(name)
                if classes == NONE:
                    classes = SOFT
            else:
                hard.append(name)
                classes = HARD
            if _labels(filled, name) is None:
                given.setdefault(name, {})["labels"] = list(teacher.classes)
    if not soft and not hard:
        has = ", ".join(f"{name} ({components[name].get('factory', 'sourced')})" for name in names) or "nothing"
        raise SettingError(
            f"no component of the student can learn from the teacher, which has: {teacher.in_words}. The student has: "
            f"{has}. A {LABELER} learns from one with the same spans_key, {NER} from one of doc.ents, textcat from "
            f"textcat and textcat_multilabel from textcat_multilabel."
        )
    if classes == HARD and any(components[name]["factory"] in CLASSIFIERS for name in soft):
        raise SettingError(
            f"of the student's classifiers one learns from probabilities and another from hard labels: "
            f"{', '.join(soft + hard)}. Give both or none {POOLED}."
        )
    _check_whole(path, filled)
    _check_dev(filled, {name: components[name] for name in names if name in (*soft, *hard)})
    return Student(config, soft, hard, classes)


def check_all_taught(student: Student) -> None:
    """Check that each component can learn from the teacher, which it must where there are no gold documents.

    RAISES (SettingError): One has nothing to learn from.
    """
    config = student.config.interpolate()
    frozen = config.get("training", {}).get("frozen_components", ())
    for name in config["nlp"]["pipeline"]:
        factory = config["components"][name].get("factory")
        if factory in MODELS and name not in (*student.soft, *student.hard, *frozen):
            raise SettingError(
                f"the student's {name!r} ({factory}) cannot learn from this teacher, and there are no gold documents. "
                f"Give some with --gold, or leave {name!r} out."
            )


def taught_config(student: Student, reader: dict[str, Any], card: dict[str, Any]) -> Config:
    """The config for training on a teacher's annotation.

    reader (dict): The block of the corpus.
    card (dict): The record of the teacher for the pipeline's meta.
    """
    config = student.config.copy()
    training = config.setdefault("training", {})
    place = training.get("train_corpus", "corpora.train").split(".")
    block = config
    for part in place[:-1]:
        block = block.setdefault(part, {})
    block[place[-1]] = reader
    before = training.get("before_to_disk")
    training["before_to_disk"] = {"@callbacks": "spacy-lsbillm.taught_by.v1", "card": card, "then": before}
    return config


def _key(block: Mapping[str, Any]) -> str:
    return block.get("spans_key", DEFAULT_CONFIG["spans_key"]) or ""


def _labels(config: Config, name: str) -> list[str] | None:
    """The labels that a config sets for a component."""
    labels = config.get("initialize", {}).get("components", {}).get(name, {}).get("labels")
    if isinstance(labels, Mapping):
        labels = registry.resolve({"labels": labels})["labels"]
    return None if labels is None else list(labels)


def _check_labeler(name: str, block: Mapping[str, Any], scheme: Scheme, labels: list[str] | None) -> None:
    """Check a student's labeler.

    RAISES (SettingError): Its tags differ from the teacher's, its threshold names other labels, or its loss needs one
        true tag.
    """
    own = block.get("scheme", DEFAULT_CONFIG["scheme"])
    if own != scheme.name:
        raise SettingError(
            f"scheme = {own!r} of the student's {name!r} is not the teacher's, which has {scheme_in_words(scheme)}: "
            f"its tags would mean something else. Use components.{name}.scheme = {scheme.name!r}."
        )
    if labels is not None and set(labels) != set(scheme.labels):
        other = sorted(set(labels) ^ set(scheme.labels))
        raise SettingError(
            f"the labels of the student's {name!r} (initialize.components.{name}.labels) are not the teacher's; only "
            f"one of the two has: {in_short(other)}. Leave them out, and it gets those of the teacher."
        )
    threshold = block.get("threshold")
    unknown = sorted(set(threshold) - set(scheme.labels)) if isinstance(threshold, Mapping) else []
    if unknown:
        raise SettingError(
            f"threshold of the student's {name!r} names labels that the teacher does not have: {in_short(unknown)}. It "
            f"has: {in_short(scheme.labels)}."
        )
    _check_loss(name, block)


def _check_classes(name: str, teacher: Teacher, labels: list[str] | None) -> None:
    """Check a student's classes. RAISES (SettingError): They differ from the teacher's, or in their order."""
    if labels is not None and tuple(labels) != teacher.classes:
        raise SettingError(
            f"the labels of the student's {name!r} (initialize.components.{name}.labels) are not the teacher's, which "
            f"are: {in_short(teacher.classes)}. Leave them out, and it gets those."
        )


def _check_loss(name: str, block: Mapping[str, Any]) -> None:
    settings = {key: block[key] for key in vars(LossSettings()) if key in block}
    if not LossSettings(**settings).plain:
        raise SettingError(
            f"{name!r} of the student has {', '.join(f'{key} = {value!r}' for key, value in settings.items())}: losses "
            f"for rare classes are made for one true label, and it learns from probabilities. Leave them out."
        )


def _check_whole(path: Path, config: Config) -> None:
    """Build the pipeline once, without weights, so that a mismatch is reported before the teacher runs.

    RAISES (ValueError): The parts of the config do not fit together.
    """
    missing = [f"training.{name}" for name in NEEDED if name not in config.get("training", {})]
    if missing:
        raise SettingError(
            f"{path} has no {' and '.join(missing)}, so it is not a complete training config. Complete it with "
            f"`python -m spacy init fill-config {path} FILE`."
        )
    load_model_from_config(config, auto_fill=True)


def _check_dev(config: Config, taught: Mapping[str, Mapping[str, Any]]) -> None:
    """Check the development documents.

    taught (Mapping): The blocks of the components that learn from the teacher, by name.
    RAISES (SettingError): The config names none, or they do not exist.
    RAISES (DataError): They have no annotation for these components.
    """
    block: Any = config
    for part in config.get("training", {}).get("dev_corpus", "corpora.dev").split("."):
        block = block.get(part, {}) if isinstance(block, Mapping) else {}
    path = block.get("path", "") if block else config.get("paths", {}).get("dev")
    if path == "":
        # Another kind of reader.
        return
    if path is None or not Path(path).exists():
        raise SettingError(
            f"there is no file or folder {str(path)!r} of annotated documents to choose the best student by. Name one "
            f"with --paths.dev; a few hundred documents are enough."
        )
    if not block or block.get("@readers") == "spacy.Corpus.v1":
        check_dev(Path(path), taught)
