"""Reading a base's config.json, whichever version of transformers wrote it.

transformers 5 writes rotary positions as `rope_parameters`, which transformers 4 does not read: it would silently
compute with its defaults. transformers 5 reads both. Other settings that one version writes and another does not read
are translated if they have another name there, and refused otherwise (`config_keys`).
"""

import inspect
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig, __version__
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..errors import BaseError
from ..files import parse_json
from .adapter_files import adapter_instead
from .config_keys import check_keys, with_known_names

READS_ROPE_PARAMETERS = hasattr(PretrainedConfig, "standardize_rope_params")
# transformers 4's names for the values in `rope_parameters`; some classes have their own.
ROPE_NAMES = {
    "rope_theta": ("rope_theta", "rotary_emb_base", "global_rope_theta"),
    "partial_rotary_factor": ("partial_rotary_factor", "rotary_pct"),
}
ROPE_TYPES = tuple(sorted({"default", *ROPE_INIT_FUNCTIONS}))
# A key of configs whose layers with a sliding window have other positions.
LOCAL_THETA = ("rope_local_base_freq", "local_rope_theta")
# How another tool marks a base that it has unmasked. Here only `unmask` decides that.
CAUSAL = "is_causal"
# Keys that make transformers read other files of the folder than those checked here.
OTHER_FILES = ("configuration_files", "transformers_weights")


def load_config(folder: Path, name: str) -> Any:
    """Read the config of a base's language model; of a multimodal checkpoint, the config of its text part.

    name (str): The base's, for messages.
    RAISES (BaseError): There is none, it cannot be read, or the installed transformers has no causal language model
        for it.
    """
    said = read_json(folder)
    model_type = said.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise BaseError(_unknown(name, model_type, "auto_map" in said))
    for key in OTHER_FILES:
        if said.get(key):
            raise BaseError(
                f"the config.json of the base {name!r} names other files in place of the usual ones ({key} = "
                f"{said[key]!r}). In a copy of the folder, rename those that you want to config.json and "
                f"model.safetensors, and remove the key."
            )
    try:
        whole = translated(AutoConfig.from_pretrained(folder), said)
    except BaseError:
        raise
    except Exception as error:
        # Configs of transformers 5 validate their values, with their own errors.
        raise BaseError(f"{folder / 'config.json'} cannot be read: {type(error).__name__}: {error}") from error
    config = text_config(whole)
    check_positions(config, name)
    check_keys(config, _part_of(whole, said, config), said.get("transformers_version"), name)
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise BaseError(
            f"the base {name!r} is of type {config.model_type!r}, for which transformers has no causal language model. "
            f"The page on families in the documentation lists those that work."
        )
    if getattr(config, "use_bidirectional_attention", False):
        raise BaseError(
            f"the base {name!r} ({config.model_type!r}) is not a causal model: it attends in both directions, by its "
            f"own rule (use_bidirectional_attention)."
        )
    if getattr(config, CAUSAL, True) is False:
        setattr(config, CAUSAL, True)
    return config


def read_json(folder: Path) -> dict[str, Any]:
    """Read a folder's config.json.

    RAISES (BaseError): There is none, or it is not a JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        instead = adapter_instead(folder)
        if instead:
            raise BaseError(instead)
        raise BaseError(f"the base folder {folder} holds no config.json: it is not a Hugging Face model folder.")
    try:
        said = parse_json(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise BaseError(f"{path} cannot be read: {error}") from error
    if not isinstance(said, dict):
        raise BaseError(f"{path} cannot be read: it is not a JSON object.")
    return said


def text_config(config: Any) -> Any:
    """The text part of a multimodal config; any other config itself."""
    part = config.get_text_config(decoder=True)
    return config if part is None else part


def _unknown(name: str, model_type: object, has_code: bool) -> str:
    if has_code:
        return (
            f"the base {name!r} ({model_type!r}) comes with its own model code (auto_map in its config.json), which is "
            "not run. Use a checkpoint of one of transformers' own families; for many models there is one whose name "
            "ends "
            f'in "-hf".'
        )
    return (
        f"the base {name!r} is of type {model_type!r}, which transformers {__version__} does not know. If the type is "
        f"newer, install a newer version; else config.json is damaged or not of a language model."
    )


def _part_of(whole: Any, said: dict[str, Any], config: Any) -> dict[str, Any]:
    """The part of a file's content that belongs to a config, which is the whole of what was read from it or a part."""
    if whole is config:
        return said
    for key, value in vars(whole).items():
        if isinstance(value, PretrainedConfig) and isinstance(said.get(key), dict):
            part = _part_of(value, said[key], config)
            if part:
                return part
    return {}


def check_positions(config: Any, name: str) -> None:
    """Check that the installed transformers knows the base's kind of rotary positions.

    RAISES (BaseError): It does not.
    """
    blocks: list[Any] = [getattr(config, key, None) for key in ("rope_scaling", "rope_parameters")]
    blocks += [inner for block in blocks if isinstance(block, dict) for inner in block.values()]
    for block in blocks:
        kind = block.get("rope_type", block.get("type")) if isinstance(block, dict) else None
        if kind not in (None, *ROPE_TYPES):
            raise BaseError(
                f"the config.json of the base {name!r} scales positions with rope_type = {kind!r}, which transformers "
                f"{__version__} does not have. It has: {', '.join(map(repr, ROPE_TYPES))}. If the type is newer, "
                f"install a newer version; else correct config.json."
            )


def translated(config: Any, said: dict[str, Any]) -> Any:
    """Translate what another version of transformers has written into the installed version's terms.

    said (dict): The content of the file.
    RETURNS (PretrainedConfig): The config with the translated settings.
    RAISES (BaseError): A setting has no counterpart.
    """
    parts = {}
    for key, value in said.items():
        # Not with getattr: transformers 5 raises an error for settings that differ between layers.
        part = vars(config).get(key)
        if isinstance(value, dict) and isinstance(part, PretrainedConfig):
            # The config of a modality inside another config.
            parts[key] = translated(part, value)
    changed = with_known_names(type(config), said)
    if not READS_ROPE_PARAMETERS:
        changed = _with_old_positions(config, changed)
    if changed != said:
        config = type(config).from_dict(dict(changed))
    for key, part in parts.items():
        setattr(config, key, part)
    return config


def _with_old_positions(config: Any, said: dict[str, Any]) -> dict[str, Any]:
    """The content of a file with positions in transformers 4's terms."""
    ropes = said.get("rope_parameters")
    if not ropes:
        return said
    known = inspect.signature(type(config).__init__).parameters
    changed = {key: value for key, value in said.items() if key != "rope_parameters"}
    if "full_attention" in ropes or "sliding_attention" in ropes:
        local = ropes.get("sliding_attention") or {}
        name = next((name for name in LOCAL_THETA if name in known), None)
        if name is None or local.get("rope_type", "default") != "default":
            raise BaseError(
                f"config.json has positions per kind of layer ({ropes}), which the installed version of transformers "
                f"does not support for {config.model_type!r}. Install transformers 5."
            )
        changed[name] = local.get("rope_theta")
        ropes = ropes.get("full_attention") or {}
    ropes = dict(ropes)
    for key, names in ROPE_NAMES.items():
        if ropes.get(key) is None:
            ropes.pop(key, None)
            continue
        value = ropes.pop(key)
        taken = [name for name in names if name in known]
        if not taken and value != getattr(config, key, value if value == 1 else None):
            raise BaseError(
                f"config.json has {key} = {value} in rope_parameters, for which the installed version of transformers "
                f"has no setting in {config.model_type!r}. Install transformers 5."
            )
        changed |= dict.fromkeys(taken, value)
    if ropes.get("rope_type", "default") != "default":
        changed["rope_scaling"] = ropes
    else:
        changed["rope_scaling"] = None
    return changed
