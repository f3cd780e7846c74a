"""The record of a stored backbone: its base, mask and adapter settings, and the versions that it was made with."""

from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import BaseError, StorageError
from ..files import parse_json
from .base import BaseSettings
from .config_arithmetic import arithmetic_of, differences
from .families import AUTO
from .mask import MaskPlan
from .model import Backbone
from .origin import Origin
from .seen_bases import known_digest

RECORD = "billm.json"
FORMAT = 2
VERSIONS_OF = ("spacy-lsbillm", "torch", "transformers", "peft")


def record_of(backbone: Backbone, cutting: dict[str, Any] | None) -> dict[str, Any]:
    """Make the record of a backbone, but for the form in which its base is stored.

    cutting (dict | None): How text is cut into windows for it; recorded unchanged.
    """
    origin = backbone.origin
    if origin.digest is None:
        origin = replace(origin, digest=known_digest(backbone.folder, origin.fingerprint))
    settings = backbone.settings
    return {
        "format": FORMAT,
        "base": {
            "name": backbone.base.name,
            "revision": backbone.base.revision,
            "model_type": backbone.config.model_type,
            "layers": backbone.config.num_hidden_layers,
            "depth": backbone.base.depth,
            "hidden_size": backbone.config.hidden_size,
            "vocab_size": backbone.config.vocab_size,
            "dtype": backbone.base.dtype,
            "quantization": backbone.base.quantization,
            **asdict(origin),
        },
        "mask": {
            "unmask": backbone.plan.notation,
            "unmasked_layers": [i for i, unmasked in enumerate(backbone.plan.unmasked) if unmasked],
            "words": backbone.plan.words,
        },
        "lora": settings.lora.as_block() if settings.lora else None,
        "scalar_mix": settings.scalar_mix,
        # What "auto" and null stood for, so that they keep this meaning if another version changes it.
        "fitted": {
            "attention": backbone.config._attn_implementation,
            "dtype": str(backbone.causal_lm.dtype).removeprefix("torch."),
            "cutting": cutting,
        },
        "versions": {name: version(name) for name in VERSIONS_OF},
    }


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record of a stored backbone.

    RAISES (StorageError): There is none, or it is of another version or damaged.
    """
    path = folder / RECORD
    try:
        record = parse_json(path.read_text(encoding="utf8"))
        if record["format"] != FORMAT:
            raise StorageError(
                f"{path} has format {record['format']}; this version of spacy-lsbillm reads {FORMAT}. Train the "
                f'pipeline again, or load it with the version that it names under "versions".'
            )
        plan_of(record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{path} cannot be read ({error!r}): copy the pipeline again.") from error
    return record


def plan_of(record: dict[str, Any]) -> MaskPlan:
    """The mask plan of a stored backbone."""
    return MaskPlan.parse(record["mask"]["unmask"], record["base"]["layers"])


def as_fitted(settings: BaseSettings, record: dict[str, Any]) -> BaseSettings:
    """Replace "auto" by what it stood for in training, if the record says so.

    (Records of older versions do not.) A dtype that has become "auto" since is that of the base's files.
    """
    fitted = record.get("fitted") or {}
    if settings.attention == AUTO and fitted:
        settings = replace(settings, attention=fitted["attention"])
    if settings.dtype == record["base"]["dtype"] == AUTO and fitted:
        settings = replace(settings, auto_dtype=fitted["dtype"])
    return settings


def recorded_cutting(folder: Path) -> dict[str, Any] | None:
    """How text was cut into windows for a stored backbone; None if an older version saved it.

    RAISES (StorageError): There is no record, or it is damaged.
    """
    return (read_record(folder).get("fitted") or {}).get("cutting")


def origin_of(record: dict[str, Any]) -> Origin:
    """What a record says about the source of the base."""
    return Origin(**{name: record["base"].get(name) for name in Origin.__dataclass_fields__})


def changes_of(record: dict[str, Any], base: Path) -> list[str]:
    """The differences between a base's config.json now and in training, in words.

    Empty if there are none, or if an older version saved the pipeline.

    RAISES (BaseError): It cannot be read.
    """
    then = origin_of(record).arithmetic
    try:
        return [] if then is None else differences(then, arithmetic_of(base))
    except (OSError, ValueError) as error:
        raise BaseError(f"{base / 'config.json'} cannot be read: {error}") from error
