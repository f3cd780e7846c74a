"""Deciding which part of a stored pipeline can be written as one of transformers' classifiers.

It is decided from the config and the record, before any weights are read. What a config.json cannot express is refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy.util import load_config

from ..backbone import INT8, MaskPlan, StoredParts, plan_of, read_record, stored_parts
from ..backbone.base_config import read_config
from ..backbone.classifier import TEXTS, TOKENS, Classifier, find_classifier
from ..backbone.families import Family
from ..backbone.proved import family_of
from ..errors import SettingError
from ..files import check_seal
from ..layers import PIECES
from ..pipeline.config_blocks import billm_blocks

# Our heads that consist of one linear layer, by architecture.
TASKS = {"spacy-lsbillm.SequenceLabeler.v1": TOKENS, "spacy-lsbillm.PooledTextCat.v1": TEXTS}
LISTENER, WHOLE_DOCUMENTS = "spacy-transformers.TransformerListener.v1", "spacy-transformers.doc_spans.v1"
TRANSFORMERS = ("billm_transformer", "transformer", "curated_transformer")
# How a token's scores are derived from those of its pieces.
MEAN, FIRST, LAST = "mean", "first", "last"
READ_AS = {"reduce_mean.v1": MEAN, "spacy-lsbillm.first_piece.v1": FIRST, "spacy-lsbillm.last_piece.v1": LAST}


@dataclass(frozen=True)
class Plan:
    """What will be exported.

    pipeline (Path): The pipeline's folder.
    transformer (str), component (str): The names of the two components.
    record (dict): The record of the stored backbone.
    mask (MaskPlan): All layers unmasked, or none.
    parts (StoredParts): The parts of the weights.
    config (PretrainedConfig): The base's, reduced to the layers that are used.
    family (Family): The family of the base.
    classifier (Classifier): The class of transformers to write.
    read_as (str): "mean", "first" or "last": how a token's scores are derived from those of its pieces.
    """

    pipeline: Path
    transformer: str
    component: str
    record: dict[str, Any]
    mask: MaskPlan
    parts: StoredParts
    config: Any
    family: Family
    classifier: Classifier
    read_as: str

    @property
    def both_ways(self) -> bool:
        """Whether all layers are unmasked."""
        return all(self.mask.unmasked)

    @property
    def base(self) -> str:
        """The name of the base, as the pipeline records it."""
        return str(self.record["base"]["name"])


def plan_export(pipeline: Path, component: str | None = None, base: str | None = None) -> Plan:
    """Check whether a stored pipeline can be exported, and how.

    pipeline (Path): The pipeline's folder.
    component (str | None): The head to export; None: the only one that listens.
    base (str | None): The folder or hub id of the base, if it is not under its recorded name.
    RAISES (SettingError, BaseError, StorageError): It cannot be exported; the message says why.
    """
    config = load_config(pipeline / "config.cfg")
    transformer = _only_transformer(config)
    model = config["components"][transformer]["model"]
    name, task = _head(config, component)
    read_as = _pooling_of(config["components"][name]["model"], name, task, model)
    _check_ways(model)
    check_seal(pipeline / transformer)
    record = read_record(pipeline / transformer)
    if record["store_base"] == INT8:
        raise SettingError(
            'the weights of this pipeline are in eight bits (store_base = "int8"), in a form that transformers does '
            "not read. Export the pipeline from which it was quantised."
        )
    mask = plan_of(record)
    if len(set(mask.unmasked)) > 1:
        raise SettingError(
            f"unmask = {mask.notation!r} ({mask.words}) cannot be exported: transformers removes the mask from all "
            "layers "
            f'or from none (is_causal in config.json). Train with unmask = "all" or "none", or share the pipeline as a '
            f"spaCy package."
        )
    parts = stored_parts(pipeline / transformer, record, base)
    parts.check(record)
    cut = read_config(parts.folder, parts.settings)
    family = family_of(cut, record["base"]["name"])
    classifier = find_classifier(cut, task, record["base"]["name"])
    return Plan(pipeline, transformer, name, record, mask, parts, cut, family, classifier, read_as)


def _only_transformer(config: dict[str, Any]) -> str:
    """The name of the pipeline's only transformer.

    RAISES (SettingError): There are several, or none of ours.
    """
    components = config.get("components", {})
    transformers = [name for name, block in components.items() if block.get("factory") in TRANSFORMERS]
    ours = list(billm_blocks(config))
    if not ours:
        raise SettingError(f"the pipeline has no billm_transformer; it has: {', '.join(components) or 'nothing'}.")
    if len(transformers) > 1:
        raise SettingError(
            f"the pipeline has several transformers: {', '.join(transformers)}. Save it with one of them and the heads "
            f"that listen to it alone (nlp.remove_pipe), and export that."
        )
    return ours[0]


def _architectures(block: Any) -> Iterator[str]:
    """The names of all architectures in a block, at any depth."""
    if isinstance(block, dict):
        if "@architectures" in block:
            yield str(block["@architectures"])
        for value in block.values():
            yield from _architectures(value)


def _head(config: dict[str, Any], component: str | None) -> tuple[str, str]:
    """The component to export, and its task.

    RAISES (SettingError): There is none, there are several, or it is not one of ours.
    """
    components = config["components"]
    listening = [name for name, block in components.items() if LISTENER in _architectures(block)]
    possible = [name for name in listening if components[name]["model"].get("@architectures") in TASKS]
    said = f"these can be exported: {', '.join(possible)}" if possible else "none of them can be exported"
    if component is None:
        if not listening:
            raise SettingError("no component of the pipeline listens to its transformer: there is no head to export.")
        if len(listening) > 1:
            raise SettingError(
                f"the pipeline has several heads, and transformers' classes have one: {', '.join(listening)}. Choose "
                f"one with --component; {said}."
            )
        component = listening[0]
    if component not in components:
        raise SettingError(
            f"--component {component}: the pipeline has no such component; it has: {', '.join(components)}."
        )
    architecture = str(components[component].get("model", {}).get("@architectures"))
    if architecture not in TASKS:
        raise SettingError(
            f"{component!r} ({architecture}) cannot be exported: transformers' classes have room only for a head that "
            f"is one linear layer over the states, which is {' or '.join(TASKS)}. Of the heads of this pipeline "
            f"{said}."
        )
    if component not in listening:
        own = ", ".join(_architectures(components[component]))
        raise SettingError(
            f"{component!r} has no listener but its own tok2vec layer ({own}), "
            f"so there is no transformer to export it with. Export the pipeline from before its listeners "
            f"were replaced."
        )
    if components[component].get("transitions") is not None:
        raise SettingError(
            f"{component!r} is a CRF (transitions = {components[component]['transitions']!r}), and transformers' "
            f"classes have no room for transition scores. Train it with transitions = null."
        )
    return component, TASKS[architecture]


def _pooling_of(head: dict[str, Any], name: str, task: str, model: dict[str, Any]) -> str:
    """How a token's scores are derived from those of its pieces.

    head (dict), model (dict): The `model` blocks of the head and the transformer.
    RAISES (SettingError): transformers' classes cannot derive them in this way.
    """
    listener = head["tok2vec"]
    if listener["@architectures"] != LISTENER:
        raise SettingError(
            f"{name!r} cannot be exported: between the transformer and its linear layer is "
            f"{listener['@architectures']!r}, which transformers' classes do not have. Let it listen directly."
        )
    pieces = model.get("output") == PIECES
    layer = listener["pooling"]["@layers"]
    read_as = READ_AS.get(layer) if pieces else MEAN
    if task == TOKENS:
        if read_as is None:
            raise SettingError(
                f"{name!r} cannot be exported: its listener pools pieces with {layer!r}, which cannot be applied to "
                f"their scores. Train it with one of: {', '.join(map(repr, READ_AS))}."
            )
        return read_as
    if head.get("pooling") != LAST or read_as != LAST:
        of = f"pieces with {layer!r}" if pieces else "the means of pieces"
        raise SettingError(
            f"{name!r} cannot be exported: its documents are pooled with pooling = {head.get('pooling')!r} from {of}, "
            f"but transformers' classes for texts use only the scores "
            f'at the last piece. Train it with pooling = "last", output = "pieces" in the transformer, '
            f'and "spacy-lsbillm.last_piece.v1" as the pooling of its listener.'
        )
    return read_as


def _check_ways(model: dict[str, Any]) -> None:
    """Check the settings of a transformer that a config.json cannot express.

    RAISES (SettingError): The transformer uses one of them.
    """
    if model.get("repeat"):
        raise SettingError(
            f"repeat = {model['repeat']} cannot be exported: transformers' classes process a text once. Train with "
            f"repeat = 0."
        )
    if model.get("scalar_mix") is not None:
        raise SettingError(
            f"scalar_mix = {model['scalar_mix']!r} cannot be exported: transformers' classes read only the last "
            f"layer. Train with null."
        )
    spans = (model.get("get_spans") or {}).get("@span_getters", WHOLE_DOCUMENTS)
    if spans != WHOLE_DOCUMENTS:
        raise SettingError(
            f"get_spans = {spans!r} cannot be exported: transformers' classes process a text as a whole, but this "
            f"pipeline processes parts of it. Set {WHOLE_DOCUMENTS!r} in the pipeline's config.cfg, and measure its "
            f"scores again."
        )
