"""The settings in a base's config.json that decide what it computes.

Weights alone do not identify a base: two bases with the same tensors may differ in `rope_theta`, a sliding window or
the scaling of positions.
"""

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from ..files import parse_json
from .config_file import translated

# Settings that do not influence the states: where a model comes from, how it is stored, and how it generates text.
NO_MATTER = frozenset(
    (
        "_name_or_path",
        "architectures",
        "auto_map",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "id2label",
        "label2id",
        "pad_token_id",
        "problem_type",
        "task_specific_params",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    )
)


def arithmetic_of(folder: Path) -> dict[str, Any]:
    """The settings in the config.json of a base that decide what it computes."""
    said = parse_json((folder / "config.json").read_text(encoding="utf8"))
    return {key: value for key, value in sorted(said.items()) if key not in NO_MATTER}


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """How two bases differ in what they compute, in words, one entry per setting; empty if they do not differ.

    Versions of transformers write the same config differently: a setting may be left out if it has its default, and
    settings of rotary positions may be separate or grouped. So both configs are first completed with the defaults of
    the installed version.
    """
    if then == now:
        return []
    one, other = (_completed(said) for said in (then, now))
    return [
        f"{key} = {other.get(key)!r}, was {one.get(key)!r}"
        for key in sorted({*one, *other})
        if one.get(key) != other.get(key)
    ]


def _completed(said: dict[str, Any]) -> dict[str, Any]:
    """A config completed with the defaults of its class.

    It is returned unchanged if the installed version does not have this class.
    """
    try:
        config = translated(AutoConfig.for_model(**said), said)
        complete = config.to_dict()
    except (ValueError, TypeError, KeyError, AttributeError):
        return said
    return {key: value for key, value in complete.items() if key not in NO_MATTER and not key.startswith("_")}
