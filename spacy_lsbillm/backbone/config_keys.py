"""The keys of config.json that the installed version of transformers reads, and those that only other versions read.

transformers keeps a key that a class does not know as an attribute that nothing reads, and computes as if it were
absent. Most such keys are notes of other tools. But if another version reads the key for the same type, ignoring it
changes the results. Those keys are listed in `config_keys.json`, which `scripts/list_config_keys.py` writes, with one
version of transformers per run.
"""

import dataclasses
import inspect
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import transformers
from transformers import GenerationConfig, PretrainedConfig

from ..errors import BaseError

FILE = "config_keys.json"
KEYS, NAMES = "keys", "names"
# Configs of transformers 5 keep settings that differ between layers in the first; the second gives the kind of each
# layer, and turns a Mistral into a Ministral. They mean the same in all types.
EVERYWHERE = ("per_layer_config", "layer_types")
FULL = "full_attention"
# Keys that are checked elsewhere.
ELSEWHERE = ("model_type", "auto_map", "quantization_config")
# Settings that do not influence the states: additional outputs, dropout, initialisation and additional losses.
HARMLESS = re.compile(r"^(output_|use_cache$|num_labels$)|dropout|pdrop|initializer|aux_loss|z_loss|jitter")
# transformers 5's name for it is `dtype`.
DTYPE_NAMES = {"dtype": "torch_dtype", "torch_dtype": "dtype"}


@cache
def listed() -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """The listed keys with their defaults, and alternative names of some, by minor version of transformers and type."""
    return json.loads(files(__package__).joinpath(FILE).read_text(encoding="utf8"))


@cache
def common_keys() -> frozenset[str]:
    """The keys that every config has in the installed version, and those of text generation."""
    return frozenset({*vars(PretrainedConfig()), *_parameters(PretrainedConfig), *GenerationConfig().to_dict()})


def own_keys(config_class: type) -> dict[str, Any]:
    """The keys that a config class has in addition to the common ones, with their defaults."""
    keys: dict[str, Any] = {}
    for one in reversed(config_class.__mro__):
        if issubclass(one, PretrainedConfig) and one is not PretrainedConfig:
            keys |= _parameters(one)
    return {key: default for key, default in keys.items() if key not in common_keys()}


def _parameters(config_class: type) -> dict[str, Any]:
    if dataclasses.is_dataclass(config_class):
        # transformers 5.
        return {
            field.name: None if field.default is dataclasses.MISSING else field.default
            for field in dataclasses.fields(config_class)
        }
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(config_class.__init__).parameters.values()  # type: ignore[misc]
    return {one.name: one.default for one in parameters if one.kind in named and one.name != "self"}


@cache
def read_keys(config_class: type) -> frozenset[str]:
    """All keys that a config class of the installed version reads."""
    aliases: dict[str, str] = getattr(config_class, "attribute_map", {})
    try:
        made = set(vars(config_class()))
    except Exception:
        # Some cannot be created without the configs of their parts.
        made = set()
    return frozenset({*own_keys(config_class), *aliases, *aliases.values(), *common_keys(), *made})


def with_known_names(config_class: type, said: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a config file under the installed version's names."""
    known = read_keys(config_class)
    result = dict(said)
    for key, value in said.items():
        if key in known:
            continue
        other = next((name for name in _other_names(config_class, key) if name in known and name not in said), None)
        if other is not None:
            del result[key]
            result[other] = value
    return result


def _other_names(config_class: type, key: str) -> Iterator[str]:
    if key in DTYPE_NAMES:
        yield DTYPE_NAMES[key]
    for types in listed().values():
        names = types.get(getattr(config_class, "model_type", ""), {}).get(NAMES, {})
        yield from (own if one == key else one for one, own in names.items() if key in (one, own))


def check_keys(config: Any, said: Mapping[str, Any], written_by: object, name: str) -> None:
    """Refuse a config with a key that the installed version ignores although it changes what the base computes.

    config (PretrainedConfig): The config as transformers read it.
    said (Mapping): The content of the file.
    written_by (object): The version of transformers in the file.
    name (str): The base's, for messages.
    RAISES (BaseError): There is a key that another version of transformers reads.
    WARNS: There is an unknown key, in a file from a version that is newer than all listed ones.
    """
    config_class: type = type(config)
    known = read_keys(config_class)
    unread = {key: said[key] for key in said if key in vars(config) and key not in known and key not in ELSEWHERE}
    unread = {key: value for key, value in unread.items() if not key.startswith("_") and not HARMLESS.search(key)}
    for key, value in unread.items():
        readers = _readers(config, key, value)
        if readers:
            raise BaseError(
                f"the config.json of the base {name!r} has {key} = {_short(value)}, which transformers "
                f"{transformers.__version__} does not read for {config.model_type!r}: it would compute something else. "
                f"Install a version that does, such as {' or '.join(readers)}."
            )
    new = sorted(key for key, value in unread.items() if value and not _is_listed(config.model_type, key))
    if new and _number(written_by) > max(map(_number, (transformers.__version__, *listed()))):
        warnings.warn(
            f"the config.json of the base {name!r} was written by transformers {written_by} and has keys that "
            f"{transformers.__version__} does not read: {', '.join(new)}. If they change what the base computes, it is "
            f"computed wrongly: install that version.",
            stacklevel=2,
        )


def _readers(config: Any, key: str, value: Any) -> list[str]:
    """The versions of transformers that compute something else with this value than without the key."""
    if key in EVERYWHERE:
        windows = any(vars(config).get(name) for name in ("sliding_window", "attention_chunk_size"))
        plain = not value or (key == "layer_types" and set(value) == {FULL} and not windows)
        return [] if plain else ["5"]
    readers = []
    for version, types in listed().items():
        defaults = types.get(config.model_type, {}).get(KEYS, {})
        # A switch that is off is off, whatever the value that says so.
        if key in defaults and value != defaults[key] and (value or defaults[key]):
            readers.append(version)
    return readers


def _is_listed(model_type: str, key: str) -> bool:
    return any(key in types.get(model_type, {}).get(KEYS, {}) for types in listed().values())


def _number(version: object) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", str(version))
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
