"""Writing a trained head as a folder that transformers loads by itself."""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import spacy
import torch
from spacy.language import Language
from transformers import PreTrainedTokenizerFast

from ..backbone.classifier import TOKENS, UNMASKS, Head, write_classifier
from ..backbone.classifier_proof import check_classifier
from ..backbone.tokenizer import TOKENIZER_CONFIG
from ..files import parse_json, replaced_folder
from ..layers import backbone_shim
from .card import called, model_card
from .plan import Plan, plan_export
from .trial import Agreement, check_scores, check_tokenizer, expected_of

RECORD, CARD = "export.json", "README.md"
FORMAT = 1
VERSIONS_OF = ("spacy-lsbillm", "spacy", "torch", "transformers")
# The special piece used for padding if the tokenizer names none, by preference.
PADS = ("pad_token", "eos_token", "unk_token", "bos_token")


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    architecture (str): The class of transformers.
    labels (tuple[str, ...]): Its labels.
    agreement (Agreement | None): How closely it agrees with the pipeline; None if that could not be tried.
    """

    architecture: str
    labels: tuple[str, ...]
    agreement: Agreement | None


def export(pipeline: Path, target: Path, component: str | None = None, base: str | None = None) -> Exported:
    """Write a head and its base, with the adapter folded in, as one of transformers' classifiers.

    The folder is loaded and compared with the pipeline before it gets its final name.

    pipeline (Path): The folder of a trained pipeline.
    target (Path): A new folder, or one that this function wrote before.
    component (str | None): The head; None: the only one that listens.
    base (str | None): The folder or hub id of the base, if it is not under its recorded name.
    RAISES (SettingError, BaseError, StorageError): It cannot be exported (the message says why), or the target contains
        something else.
    """
    plan = plan_export(pipeline, component, base)
    if UNMASKS or not plan.both_ways:
        check_classifier(plan.config, plan.classifier, plan.family, plan.both_ways, plan.base)
    with replaced_folder(target, known_by=RECORD) as folder:
        nlp = _load(plan, base)
        head = _head_of(nlp, plan)
        expected = expected_of(nlp, plan)
        tokenizer = _tokenizer_of(nlp, plan)
        record = _record(nlp, plan, head)
        performance = nlp.meta.get("performance") or {}
        # Its weights are freed to make room for those of the check.
        del nlp
        write_classifier(folder, plan.parts, plan.classifier, head, plan.family, plan.both_ways, tokenizer.pad_token_id)
        _write_tokenizer(tokenizer, folder)
        check_tokenizer(folder, expected)
        agreement = check_scores(folder, plan, head, expected)
        record["checked"] = agreement and {"texts": agreement.texts, "largest_difference": agreement.largest}
        (folder / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf8")
        license = plan.record["base"].get("license")
        (folder / CARD).write_text(model_card(record, license, performance), encoding="utf8")
    return Exported(plan.classifier.architecture, head.labels, agreement)


def _load(plan: Plan, base: str | None) -> Language:
    """Load the two components where spaCy computes, with the base unquantised, as the adapter is folded into it."""
    model: dict[str, Any] = {"quantization": None, "device": None, **({} if base is None else {"name": base})}
    kept = {plan.transformer, plan.component}
    others = [name for name in spacy.util.load_config(plan.pipeline / "config.cfg")["components"] if name not in kept]
    return spacy.load(plan.pipeline, exclude=others, config={"components": {plan.transformer: {"model": model}}})


def _head_of(nlp: Language, plan: Plan) -> Head:
    pipe: Any = nlp.get_pipe(plan.component)
    output = pipe.model.get_ref("output_layer")
    weight, bias = (torch.from_numpy(np.array(output.get_param(name), dtype=np.float32)) for name in ("W", "b"))
    if plan.classifier.task == TOKENS:
        return Head(weight, bias, tuple(pipe.scheme.tags))
    several = bool(pipe.model.attrs["multi_label"])
    problem = "multi_label_classification" if several else "single_label_classification"
    return Head(weight, bias, tuple(pipe.labels), problem, shift_counts=several)


def _tokenizer_of(nlp: Language, plan: Plan) -> PreTrainedTokenizerFast:
    """The pipeline's tokenizer. It may be changed, as the pipeline is not used any more."""
    transformer: Any = nlp.get_pipe(plan.transformer)
    shim = backbone_shim(transformer.model)
    tokenizer = shim.backbone.tokenizer
    name = next((name for name in PADS if getattr(tokenizer, f"{name}_id") is not None), None)
    if name is not None:
        tokenizer.pad_token = getattr(tokenizer, name)
    # Right padding, with positions counted from the left.
    tokenizer.padding_side = "right"
    tokenizer.model_max_length = shim.window
    return tokenizer


def _write_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    tokenizer.save_pretrained(str(folder))
    path = folder / TOKENIZER_CONFIG
    said = parse_json(path.read_text(encoding="utf8"))
    # Tokenizers without their own class also return token types, which GPT-2 accepts and handles wrongly.
    said["model_input_names"] = ["input_ids", "attention_mask"]
    path.write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf8")


def _record(nlp: Language, plan: Plan, head: Head) -> dict[str, Any]:
    transformer: Any = nlp.get_pipe(plan.transformer)
    shim = backbone_shim(transformer.model)
    return {
        "format": FORMAT,
        "task": plan.classifier.task,
        "architecture": plan.classifier.architecture,
        "pipeline": {key: nlp.meta[key] for key in ("lang", "name", "version")},
        "component": plan.component,
        "labels": list(head.labels),
        "read_as": plan.read_as,
        "both_ways": plan.both_ways,
        "mask": plan.mask.words,
        "layers": len(plan.mask.unmasked),
        "window": shim.window,
        "overlap": shim.overlap,
        "white_space": shim.white_space,
        "base": {"name": called(plan.base), "fingerprint": plan.record["base"]["fingerprint"]},
        "versions": {name: version(name) for name in VERSIONS_OF},
    }
