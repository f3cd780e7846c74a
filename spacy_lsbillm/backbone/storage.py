"""A backbone on disk: the adapter in peft's format, the tokenizer, a record of the base, and on request the base.

billm.json      the record: base, mask, adapter settings, versions
adapter/        adapter_config.json, adapter_model.safetensors (not with "merged")
tokenizer/
base/           with store_base = "copy": the base as it was, but for layers above `depth`
merged/         with store_base = "merged": a plain model with the adapter folded in
int8/           with store_base = "int8": the same with weights in eight bits, see `int8_files`
mix.safetensors with scalar_mix: the learned mix of layers
"""

import json
import shutil
import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..errors import AdapterError, StorageError
from ..files import as_os_error
from .adapter import LoraSettings, write_adapter
from .base import BaseSettings
from .fingerprint import checked_fingerprint, fingerprint
from .int8_files import is_int8
from .loading import load_backbone
from .mask import MaskPlan
from .merge import write_model
from .model import Backbone, BackboneSettings
from .record import RECORD, as_fitted, changes_of, origin_of, plan_of, read_record, record_of
from .whereabouts import files_of, find_base

STORE_BASE = REFERENCE, COPY, MERGED = ("reference", "copy", "merged")
# Made from a trained pipeline, never by training.
INT8 = "int8"
STORED_AS = (*STORE_BASE, INT8)
# The subfolder of a stored base.
FOLDERS = {COPY: "base", MERGED: "merged", INT8: "int8"}
# Those of them that contain the adapter.
FOLDED = (MERGED, INT8)
ADAPTER, TOKENIZER = "adapter", "tokenizer"


@as_os_error()
def save_backbone(
    backbone: Backbone,
    folder: Path,
    store_base: str,
    adapter_dtype: str = "float32",
    cutting: dict[str, Any] | None = None,
) -> None:
    """Write a backbone into an existing, empty folder.

    store_base (str): One of `STORE_BASE`.
    adapter_dtype (str): The adapter's dtype on disk, one of `ADAPTER_DTYPES`.
    cutting (dict | None): How text is cut into windows for it; recorded unchanged.
    RAISES (StorageError): A merged pipeline cannot be saved in another form, as its adapter is gone.
    RAISES (BaseError): A part of the base is to be stored, but its files cannot be found any more.
    RAISES (OSError): It cannot be written.
    """
    if backbone.stored_as is not None:
        _refuse_unmerging(backbone.stored_as, store_base)
    backbone.tokenizer.save_pretrained(str(folder / TOKENIZER))
    if backbone.adapted:
        write_adapter(backbone.model, folder / ADAPTER, backbone.base, adapter_dtype)
    if backbone.mix is not None:
        backbone.mix.write(folder)
    record = record_of(backbone, cutting)
    lora = backbone.settings.lora if backbone.adapted else None
    base = files_of(backbone) if store_base in FOLDERS else backbone.folder
    _store(folder, record, store_base, base, backbone.base, lora)


def convert_stored(
    source: Path, target: Path, store_base: str, base: str | None = None, kept: Collection[int] = ()
) -> None:
    """Write a stored backbone again with its base stored in another form. No model is loaded.

    source (Path): What `save_backbone` wrote.
    target (Path): An existing, empty folder.
    base (str | None): The folder or hub id of the base, if it is not under its recorded name.
    kept (Collection[int]): With "int8", layers whose weights stay in float32.
    RAISES (StorageError, BaseError): It is merged already, or its base cannot be found or is another one.
    """
    record = read_record(source)
    stored, block = record["store_base"], record["base"]
    if store_base == stored == INT8:
        raise StorageError("the weights of this pipeline are in eight bits already. Start from the trained pipeline.")
    if stored == INT8 or (stored == MERGED and store_base != INT8):
        _refuse_unmerging(stored, store_base)
    if store_base == INT8:
        block |= {"dtype": "float32", "quantization": INT8}
        if record.get("fitted"):
            record["fitted"]["dtype"] = "float32"
    for path in source.iterdir():
        if path.name not in (*FOLDERS.values(), RECORD):
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, target / path.name)
    parts = stored_parts(source, record, base)
    if store_base in FOLDERS:
        parts.check(record)
    lora = parts.adapter[1] if parts.adapter else None
    _store(target, record, store_base, parts.folder, parts.settings, lora, kept)


@dataclass(frozen=True)
class StoredParts:
    """The parts from which the weights of a stored backbone are assembled.

    folder (Path): The base, or a merged model in its place.
    settings (BaseSettings): Which part of it is used, and in which dtype; without quantisation.
    adapter (tuple | None): The folder of the adapter, and its settings.
    inside (bool): Whether the base is stored inside the pipeline.
    """

    folder: Path
    settings: BaseSettings
    adapter: tuple[Path, LoraSettings] | None
    inside: bool

    def check(self, record: dict[str, Any]) -> None:
        """Check that the base is that of training.

        RAISES (BaseError): It is another base.
        WARNS: Its config.json now says something else than in training.
        """
        expected = record["stored_fingerprint"] if self.inside else record["base"]["fingerprint"]
        checked_fingerprint(self.folder, record["base"]["name"], expected)
        if not self.inside:
            _warn_of_arithmetic(record, self.folder)


def stored_parts(source: Path, record: dict[str, Any], base: str | None = None) -> StoredParts:
    """Find the parts of a stored backbone.

    source (Path), record (dict): What `save_backbone` wrote, and its record.
    base (str | None): The folder or hub id of the base, if it is not under its recorded name.
    RAISES (BaseError): The base cannot be found.
    """
    stored, block = record["store_base"], record["base"]
    inside = stored in FOLDERS
    folder = source / FOLDERS[stored] if inside else find_base(record, base)
    settings = BaseSettings(block["name"], block["revision"], block["dtype"], None, depth=block["depth"])
    lora = LoraSettings.read(record["lora"]) if record["lora"] and stored not in FOLDED else None
    return StoredParts(folder, settings, (source / ADAPTER, lora) if lora else None, inside)


def _store(
    folder: Path,
    record: dict[str, Any],
    store_base: str,
    base: Path,
    settings: BaseSettings,
    lora: LoraSettings | None,
    kept: Collection[int] = (),
) -> None:
    """Write the requested form of the base, and the record."""
    record = {**record, "store_base": store_base, "stored_fingerprint": None}
    if store_base in FOLDERS:
        adapter = (folder / ADAPTER, lora) if store_base in FOLDED and lora is not None else None
        target = folder / FOLDERS[store_base]
        if is_int8(base):
            shutil.copytree(base, target)
        else:
            write_model(base, settings, adapter, target, kept if store_base == INT8 else None)
        record["stored_fingerprint"] = fingerprint(folder / FOLDERS[store_base])
        if adapter is not None:
            shutil.rmtree(folder / ADAPTER)
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf8")


def _refuse_unmerging(stored: str, store_base: str) -> None:
    if store_base != stored:
        raise StorageError(
            f'this pipeline was saved with store_base = "{stored}": its adapter is part of the weights, so it cannot '
            f'be saved with store_base = {store_base!r}. Set "{stored}", or start from the trained pipeline.'
        )


def load_stored(folder: Path, settings: BackboneSettings, device: torch.device) -> Backbone:
    """Load a stored backbone.

    If the settings name another base than the record, this is an override: it is loaded from there if its fingerprint
    is the recorded one. `dtype` and `quantization` may differ from training. A warning is given if the base's
    config.json now decides another arithmetic than in training.

    RAISES (StorageError, AdapterError, BaseError): A part is damaged, or does not fit.
    """
    record = read_record(folder)
    base = as_fitted(settings.base, record)
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
    recorded = plan_of(record)
    asked = MaskPlan.parse(settings.unmask, record["base"]["layers"])
    if asked.unmasked != recorded.unmasked:
        warnings.warn(
            f"this pipeline was trained with {recorded.words}, but is loaded with {asked.words}: results will differ.",
            stacklevel=2,
        )
    store_base = record["store_base"]
    overridden = base.name != record["base"]["name"]
    merged = store_base in FOLDED
    if store_base == INT8:
        _check_int8(base, device, folder)
    if merged and overridden:
        raise StorageError(
            f"the base cannot be overridden by {base.name!r}: {folder} contains one with the adapter folded in. "
            f"Leave name = {record['base']['name']!r}."
        )
    inside = store_base in FOLDERS and not overridden
    at = folder / FOLDERS[store_base] if inside else find_base(record, base.name if overridden else None, base.revision)
    if not inside:
        _warn_of_arithmetic(record, at)
    backbone = load_backbone(
        # The adapter of a merged pipeline is in its weights.
        replace(settings, base=base, lora=None if merged else settings.lora),
        device=device,
        adapter=folder / ADAPTER if record["lora"] and not merged else None,
        mix=folder,
        expected_fingerprint=record["stored_fingerprint"] if inside else record["base"]["fingerprint"],
        at=at,
        tokenizer_folder=folder / TOKENIZER,
        int8=store_base == INT8,
    )
    final = store_base if store_base == INT8 or (merged and record["lora"]) else None
    return replace(backbone, settings=settings, stored_as=final, origin=origin_of(record))


def _check_int8(base: BaseSettings, device: torch.device, folder: Path) -> None:
    if base.quantization != INT8 or base.dtype != "float32":
        raise StorageError(
            f"{folder} contains eight-bit weights, which compute in float32: quantization = {base.quantization!r} "
            f'with dtype = {base.dtype!r} is not allowed. Use "int8" with "float32", or the original pipeline.'
        )
    if device.type != "cpu":
        raise StorageError(
            f"{folder} contains eight-bit weights for a CPU, but the device is {device.type!r}. On a GPU, use the "
            f"pipeline from before `lsbillm quantize`; there, bfloat16 is fast."
        )


def _warn_of_arithmetic(record: dict[str, Any], base: Path) -> None:
    changes = changes_of(record, base)
    if changes:
        warnings.warn(
            f"{base / 'config.json'} differs from that of training: {'; '.join(changes)}. Results will differ, unless "
            f"both mean the same.",
            stacklevel=3,
        )


def _check_lora(recorded: dict[str, Any] | None, asked: LoraSettings | None, folder: Path) -> None:
    """Check that the adapter's settings are those of training. Only dropout may change between trainings."""
    stored = LoraSettings.read(recorded) if recorded else None
    if stored is not None and asked is not None:
        stored = replace(stored, dropout=asked.dropout)
    if stored != asked:
        raise AdapterError(
            f"the config has lora = {asked and asked.as_block()}, but the adapter in {folder} was trained with "
            f"{recorded}. Set the config to that."
        )
