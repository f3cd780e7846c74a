"""What a base's config.json says of its arithmetic, which the weights do not tell: two bases with the same tensors may
differ in `rope_theta`, a sliding window or the scaling of positions."""

import json
from pathlib import Path
from typing import Any

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
    said = json.loads((folder / "config.json").read_text(encoding="utf8"))
    return {key: value for key, value in sorted(said.items()) if key not in NO_MATTER}


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In words, one entry a setting; none if both say the same."""
    return [
        f"{key} = {now.get(key)!r}, was {then.get(key)!r}"
        for key in sorted({*then, *now})
        if then.get(key) != now.get(key)
    ]
