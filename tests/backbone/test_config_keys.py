"""Keys of config.json that the installed transformers does not read: translated, refused or irrelevant.

They are never ignored if they change the arithmetic. No weights are needed for these tests.
"""

import json
import warnings

import pytest
from tiny import FAMILIES
from transformers import CONFIG_MAPPING, __version__

from spacy_lsbillm.backbone.config_arithmetic import differences
from spacy_lsbillm.backbone.config_file import load_config
from spacy_lsbillm.backbone.config_keys import HARMLESS, KEYS, listed, read_keys
from spacy_lsbillm.backbone.proved import minor_version, shipped
from spacy_lsbillm.errors import BaseError

HALF = ["sliding_attention", "full_attention"]


def write(folder, model_type, **said):
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **said}))
    return folder


def other(value):
    """Another value of a setting."""
    if isinstance(value, bool):
        return not value
    return value * 2 + 1 if isinstance(value, int | float) else "other"


def usable_types():
    """Types whose own config is that of the language model, and whose mask can be removed."""
    found = shipped().get(minor_version(), {})
    return sorted(name for name in found if found[name].get("type") == name and name in CONFIG_MAPPING)


@pytest.mark.parametrize("model_type", usable_types() or sorted(FAMILIES))
def test_what_another_version_reads_is_read_or_refused(tmp_path, model_type):
    config_class = CONFIG_MAPPING[model_type]
    try:
        plain = load_config(write(tmp_path, model_type), "base").to_dict()
    except BaseError as error:
        pytest.skip(str(error))
    for types in listed().values():
        for key, default in types.get(model_type, {}).get(KEYS, {}).items():
            if key in read_keys(config_class) or HARMLESS.search(key):
                continue
            changed = other(default)
            try:
                config = load_config(write(tmp_path, model_type, **{key: changed}), "base")
            except BaseError:
                continue
            found = config.to_dict()
            assert key not in vars(config), f"{key} = {changed} is ignored"
            if default is not None:
                assert found != plain, f"{key} = {changed} changes nothing"
            load_config(write(tmp_path, model_type, **{key: default}), "base")


@pytest.mark.parametrize(
    ("model_type", "said"),
    [
        ("llama", {"per_layer_config": {"0": {"num_key_value_heads": 2}}}),
        ("mistral", {"num_hidden_layers": 2, "layer_types": HALF}),
        ("llama", {"num_hidden_layers": 2, "layer_types": HALF}),
        ("smollm3", {"mlp_bias": True}),
    ],
)
def test_what_differs_between_layers_is_never_ignored(tmp_path, model_type, said):
    folder = write(tmp_path, model_type, **said)
    try:
        config = load_config(folder, "the base")
    except BaseError as error:
        key = list(said)[-1]
        assert f"'the base' has {key} = " in str(error)
        assert f"transformers {__version__} does not read" in str(error)
        assert "Install a version that does, such as 5" in str(error)
    else:
        assert not set(said) - read_keys(type(config)) - {"per_layer_config"}
        assert config.model_type != "mistral"


def test_another_name_of_a_key(tmp_path):
    for key in ("num_experts", "num_local_experts"):
        config = load_config(write(tmp_path, "qwen3_moe", **{key: 16}), "base")
        assert config.num_experts == 16
    for key in ("dtype", "torch_dtype"):
        config = load_config(write(tmp_path, "llama", **{key: "bfloat16"}), "base")
        saved = json.loads(config.to_json_string())
        assert [saved[name] for name in ("dtype", "torch_dtype") if name in saved] == ["bfloat16"]
    one, both = ({"model_type": "qwen3_moe", key: 16} for key in ("num_experts", "num_local_experts"))
    assert differences(one, both) == []


@pytest.mark.parametrize(
    "said",
    [
        # Keys that other tools and older versions leave in config.json.
        {"is_llama_config": True, "rope_interleaved": False, "unsloth_version": "2025.1"},
        {"pretraining_objective": "clm", "max_length": 20, "temperature": 0.5, "do_sample": True},
        {"torchscript": False, "use_cache": False, "output_router_logits": True, "num_labels": 3},
        {"mlp_bias": False, "use_bidirectional_attention": None, "layer_types": None},
        {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2},
        {"transformers_version": "4.40.0", "something_new": True},
    ],
)
def test_remarks_do_no_harm(tmp_path, said):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_config(write(tmp_path, "llama", **said), "base")


def test_a_key_that_only_a_newer_version_can_know(tmp_path):
    folder = write(tmp_path, "llama", transformers_version="99.0.0", something_new=True, something_off=False)
    with pytest.warns(
        UserWarning, match=r"written by transformers 99\.0\.0 .*: something_new\. .* install that version"
    ):
        load_config(folder, "base")


@pytest.mark.parametrize("part", ["text_config", None])
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("kind", ["newest", 3])
def test_a_scaling_of_positions_that_is_not_known(tmp_path, part, key, kind):
    said = {key: {"rope_type": kind, "factor": 2.0, "rope_theta": 1e4}}
    if part is None:
        folder = write(tmp_path, "llama", **said)
    else:
        folder = write(tmp_path, "gemma3", text_config={"model_type": "gemma3_text", **said})
    with pytest.raises(BaseError, match=r"rope_type.*(does not have. It has: 'default', .*'yarn'|cannot be read)"):
        load_config(folder, "base")
