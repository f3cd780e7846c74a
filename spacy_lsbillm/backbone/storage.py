"""A backbone on disk: the adapter in peft's format, the tokenizer, a record of the base, and on request the base.

billm.json      the record: base, mask, adapter settings, digests, versions
adapter/        adapter_config.json, adapter_model.safetensors (not with "merged")
tokenizer/
base/           with store_base = "copy": the base as it was
merged/         with store_base = "merged": a plain model with the adapter folded in
mix.safetensors with scalar_mix: the learned mix of layers
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..errors import AdapterError, StorageError
from .adapter import LoraSettings, folded, read_adapter, write_adapter
from .base import load_causal_lm
from .fingerprint import INDEX, fingerprint, weight_files
from .known import known_folder
from .mask import MaskPlan
from .mix import FILE as MIX_FILE
from .model import Backbone, BackboneSettings, load_backbone

RECORD = "billm.json"
FORMAT = 1
STORE_BASE = ("reference", "copy", "merged")
LARGEST_SHARD = "4GB"
VERSIONS_OF = ("spacy-lsbillm", "torch", "transformers", "peft")


def save_backbone(backbone: Backbone, folder: Path, store_base: str) -> None:
    """Write a backbone into an existing, empty folder.

    RAISES (StorageError): A merged pipeline cannot be saved otherwise, as its adapter is gone.
    """
    if backbone.merged and store_base != "merged":
        raise StorageError(
            f'this pipeline was saved with store_base = "merged": its adapter is part of the weights, so it cannot '
            f'be saved with store_base = {store_base!r}. Set "merged", or start from the pipeline as it was trained.'
        )
    backbone.tokenizer.save_pretrained(str(folder / "tokenizer"))
    if backbone.adapted and store_base != "merged":
        write_adapter(backbone.model, folder / "adapter", backbone.base)
    if backbone.mix is not None:
        backbone.mix.write(folder)
    base = {
        "name": backbone.base.name,
        "revision": backbone.base.revision,
        "model_type": backbone.config.model_type,
        "layers": backbone.config.num_hidden_layers,
        "depth": backbone.base.depth,
        "hidden_size": backbone.config.hidden_size,
        "vocab_size": backbone.config.vocab_size,
        "dtype": backbone.base.dtype,
        "quantization": backbone.base.quantization,
        "fingerprint": backbone.fingerprint,
    }
    if store_base == "copy":
        _copy_model(backbone.folder, folder / "base")
    elif store_base == "merged":
        if backbone.merged or not backbone.adapted:
            _copy_model(backbone.folder, folder / "merged")
        else:
            _merge_into(backbone, folder)
        base["merged_fingerprint"] = fingerprint(folder / "merged")
    lora = backbone.settings.lora
    record = {
        "format": FORMAT,
        "base": base,
        "store_base": store_base,
        "mask": {
            "unmask": backbone.plan.notation,
            "unmasked_layers": [i for i, unmasked in enumerate(backbone.plan.unmasked) if unmasked],
            "words": backbone.plan.words,
        },
        "lora": lora.as_block() if lora else None,
        "scalar_mix": backbone.settings.scalar_mix,
        "files": {str(path.relative_to(folder)): _digest(path) for path in _small_files(folder)},
        "versions": {name: version(name) for name in VERSIONS_OF},
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf8")


def read_record(folder: Path) -> dict[str, Any]:
    """RAISES (StorageError): There is none, or it is of another version or damaged."""
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf8"))
        if record["format"] != FORMAT:
            raise StorageError(f"{path} has format {record['format']}; this version of spacy-lsbillm reads {FORMAT}.")
        MaskPlan.parse(record["mask"]["unmask"], record["base"]["layers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{path} cannot be read ({error!r}): copy the pipeline again.") from error
    return record


def read_plan(folder: Path) -> MaskPlan:
    """The mask of a stored backbone, without loading it."""
    record = read_record(folder)
    return MaskPlan.parse(record["mask"]["unmask"], record["base"]["layers"])


def load_stored(folder: Path, settings: BackboneSettings, device: torch.device) -> Backbone:
    """Read a stored backbone back. A base under another name than the record's is an override: it is loaded from there
    if its fingerprint is the recorded one.

    RAISES (StorageError, AdapterError, BaseError): A file is damaged, or does not fit.
    """
    record = read_record(folder)
    for name, digest in record["files"].items():
        path = folder / name
        if not path.is_file() or _digest(path) != digest:
            state = "altered" if path.is_file() else "missing"
            raise StorageError(f"{path} is {state} since the pipeline was saved: copy the pipeline again.")
    base = settings.base
    _check_lora(record["lora"], settings.lora, folder)
    for setting, value, stored in (
        ("depth", base.depth, record["base"]["depth"]),
        ("scalar_mix", settings.scalar_mix, record["scalar_mix"]),
    ):
        if value != stored:
            raise StorageError(
                f"the config has {setting} = {value!r}, but the pipeline in {folder} was trained with {stored!r}. "
                f"Set the config to that."
            )
    recorded = MaskPlan.parse(record["mask"]["unmask"], record["base"]["layers"])
    asked = MaskPlan.parse(settings.unmask, record["base"]["layers"])
    if asked.unmasked != recorded.unmasked:
        warnings.warn(
            f"this pipeline was trained with {recorded.words}, and is loaded with {asked.words}: results will differ.",
            stacklevel=2,
        )
    overridden = base.name != record["base"]["name"]
    merged = record["store_base"] == "merged"
    if merged and overridden:
        raise StorageError(
            f"the base cannot be overridden by {base.name!r}: {folder} holds one with the adapter folded in. "
            f"Leave name = {record['base']['name']!r}."
        )
    if overridden:
        at = None
    elif record["store_base"] == "reference":
        at = known_folder(record["base"]["fingerprint"])
    else:
        at = folder / ("merged" if merged else "base")
    backbone = load_backbone(
        # The adapter of a merged pipeline is in its weights.
        replace(settings, lora=None) if merged else settings,
        device=device,
        adapter=folder / "adapter" if record["lora"] and not merged else None,
        mix=folder,
        expected_fingerprint=record["base"]["merged_fingerprint" if merged else "fingerprint"],
        at=at,
        tokenizer_folder=folder / "tokenizer",
    )
    return replace(backbone, settings=settings, merged=merged and bool(record["lora"]))


def _check_lora(recorded: dict[str, Any] | None, asked: LoraSettings | None, folder: Path) -> None:
    """Dropout may change between trainings; what decides the result may not."""
    stored = LoraSettings.read(recorded) if recorded else None
    if stored is not None and asked is not None:
        stored = replace(stored, dropout=asked.dropout)
    if stored != asked:
        raise AdapterError(
            f"the config has lora = {asked and asked.as_block()}, but the adapter in {folder} was trained with "
            f"{recorded}. Set the config to that."
        )


def _copy_model(source: Path, target: Path) -> None:
    target.mkdir()
    names = ["config.json", "generation_config.json", INDEX]
    for path in [*(source / name for name in names if (source / name).is_file()), *weight_files(source)]:
        shutil.copyfile(path, target / path.name)


def _merge_into(backbone: Backbone, folder: Path) -> None:
    """Fold the adapter into a second copy of the base, unquantised, so that the running one stays as it is."""
    plain = replace(backbone.base, quantization=None)
    write_adapter(backbone.model, folder / "adapter", backbone.base)
    model = folded(read_adapter(load_causal_lm(backbone.folder, plain, torch.device("cpu")), folder / "adapter"))
    model.save_pretrained(str(folder / "merged"), max_shard_size=LARGEST_SHARD)
    shutil.rmtree(folder / "adapter")


def _small_files(folder: Path) -> Iterator[Path]:
    """The files whose whole content is digested. Base weights have a fingerprint instead."""
    for part in ("adapter", "tokenizer"):
        yield from sorted(path for path in (folder / part).rglob("*") if path.is_file())
    if (folder / MIX_FILE).exists():
        yield folder / MIX_FILE


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
