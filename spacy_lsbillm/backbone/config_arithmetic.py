"""What a base's config.json says of its arithmetic, which the weights do not tell: two bases with the same tensors may
differ in `rope_theta`, a sliding window or the scaling of positions."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from ..files import parse_json
from .config_file import translated

# Settings that states do not depend on: where a model comes from, how it is stored, and how text is generated with it.
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
    """The settings of a base that decide what it computes, as its config.json has them."""
    said = parse_json((folder / "config.json").read_text(encoding="utf8"))
    return {key: value for key, value in sorted(said.items()) if key not in NO_MATTER}


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In words, one entry a setting; none if both say the same.

    The same config is written in different words by different versions of transformers: a setting may be left out where
    it has its default, and the settings of rotary positions may stand alone or together. Both are made complete by the
    installed version first.
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
    """What a config says with the defaults of its class; as it is where the installed version has no such class."""
    try:
        config = translated(AutoConfig.for_model(**said), said)
        complete = config.to_dict()
    except (ValueError, TypeError, KeyError, AttributeError):
        return said
    return {key: value for key, value in complete.items() if key not in NO_MATTER and not key.startswith("_")}
