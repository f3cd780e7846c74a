"""What a trained pipeline can teach, from its files, without its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spacy.util import load_config, load_meta

from ..errors import SettingError
from ..files import content_of
from ..pipeline.sequence_labeler import DEFAULT_CONFIG
from ..saving.pipelines import CONFIG, META
from ..tagging import Scheme

LABELER = "sequence_labeler"
# The factories of components that write `doc.cats`, and whether their classes exclude each other.
CLASSIFIERS = {"textcat": True, "textcat_multilabel": False}


@dataclass(frozen=True)
class Teacher:
    """The heads of a trained pipeline that can teach.

    name (str), version (str): From its meta.
    fingerprint (str): A digest of all its files.
    tags (dict[str, Scheme]): The schemes of its sequence_labelers, by the group of spans that they write, "" for
        entities.
    classes (tuple[str, ...]): The classes of its classifier.
    exclusive (bool | None): Whether the classes exclude each other; None: it has no classifier.
    """

    name: str
    version: str
    fingerprint: str
    tags: dict[str, Scheme] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    exclusive: bool | None = None

    @property
    def in_words(self) -> str:
        """Its heads in words, for a message."""
        heads = [f"a {LABELER} of {_place(key)}" for key in self.tags]
        heads += [name for name, exclusive in CLASSIFIERS.items() if exclusive == self.exclusive]
        return ", ".join(heads)

    def as_dict(self) -> dict[str, Any]:
        """The teacher as plain values, for a file."""
        tags = {key: {"scheme": scheme.name, "labels": list(scheme.labels)} for key, scheme in self.tags.items()}
        return {**vars(self), "tags": tags, "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Teacher":
        """Read what `as_dict` returned.

        RAISES (TypeError, KeyError): It is not a teacher.
        """
        tags = {key: Scheme(one["scheme"], tuple(one["labels"])) for key, one in content["tags"].items()}
        return cls(**{**content, "tags": tags, "classes": tuple(content["classes"])})


def read_teacher(folder: Path) -> Teacher:
    """Find what the pipeline in a folder can teach.

    RAISES (SettingError): Nothing; or two of its heads write to the same place, where they cannot be distinguished.
    """
    config, meta = load_config(folder / CONFIG), load_meta(folder / META)
    blocks = {name: config["components"][name] for name in config["nlp"]["pipeline"]}
    enabled = {name: block for name, block in blocks.items() if name not in config["nlp"].get("disabled", ())}
    tags: dict[str, Scheme] = {}
    classifiers: dict[str, str] = {}
    for name, block in enabled.items():
        factory, labels = block.get("factory"), meta.get("labels", {}).get(name, ())
        if factory == LABELER and labels:
            key = block.get("spans_key", DEFAULT_CONFIG["spans_key"]) or ""
            if key in tags:
                raise SettingError(
                    f"the teacher has several {LABELER}s of {_place(key)}, which cannot be distinguished there. Give "
                    f"each its own spans_key."
                )
            tags[key] = Scheme(block.get("scheme", DEFAULT_CONFIG["scheme"]), tuple(labels))
        elif factory in CLASSIFIERS and labels:
            classifiers[name] = factory
    if len(classifiers) > 1:
        raise SettingError(
            f"the teacher has several classifiers ({', '.join(classifiers)}), whose classes cannot be distinguished in "
            f"doc.cats. Disable all but one."
        )
    if not tags and not classifiers:
        raise SettingError(
            f"the pipeline in {folder} has no head that can teach: a teacher needs a trained {LABELER}, "
            f"{' or '.join(CLASSIFIERS)}. It has: {', '.join(blocks) or 'nothing'}."
        )
    classes, exclusive = (), None
    for name, factory in classifiers.items():
        classes, exclusive = tuple(meta["labels"][name]), CLASSIFIERS[factory]
    called = f"{meta.get('lang', 'xx')}_{meta.get('name', 'pipeline')}"
    return Teacher(called, str(meta.get("version", "")), content_of(folder), tags, classes, exclusive)


def _place(key: str) -> str:
    return f"doc.spans[{key!r}]" if key else "doc.ents"
