"""List the keys of config.json that the installed transformers reads, for each type of causal language model.

    python scripts/list_config_keys.py

The result is written into `spacy_lsbillm/backbone/config_keys.json` under the minor version of transformers; the lists
of other versions are kept. From these lists, `spacy_lsbillm.backbone.config_keys` sees whether a key that one version
does not read has a meaning in another. Run it once in an environment of each supported version; it takes a few seconds.
"""

import json
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from spacy_lsbillm.backbone import config_keys
from spacy_lsbillm.backbone.proved import minor_version

RESULT = Path(config_keys.__file__).with_name(config_keys.FILE)


def main() -> None:
    """Add the keys of the installed version to the file."""
    known = json.loads(RESULT.read_text(encoding="utf8")) if RESULT.is_file() else {}
    known[minor_version()] = {name: keys_of(name) for name in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)}
    RESULT.write_text(as_text(dict(sorted(known.items()))), encoding="utf8")


def keys_of(model_type: str) -> dict[str, Any]:
    """The keys of a type with their defaults, and its attribute map of alternative names."""
    config_class = CONFIG_MAPPING[model_type]
    keys = {key: plain(default) for key, default in sorted(config_keys.own_keys(config_class).items())}
    return {config_keys.KEYS: keys, config_keys.NAMES: dict(sorted(config_class.attribute_map.items()))}


def plain(default: Any) -> Any:
    """A default as it can be written in a config file; None if it cannot."""
    try:
        return json.loads(json.dumps(default, allow_nan=False))
    except (TypeError, ValueError):
        return None


def as_text(known: dict[str, dict[str, Any]]) -> str:
    """The lists as JSON with one line per type."""
    versions = []
    for version, types in known.items():
        lines = [f"{json.dumps(name)}: {json.dumps(keys)}" for name, keys in types.items()]
        versions.append(f"{json.dumps(version)}: {{\n" + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(versions) + "\n}\n"


if __name__ == "__main__":
    main()
