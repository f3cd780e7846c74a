"""Settings: values of a wrong type, some of which spaCy's config system accepts; and defaults.

The defaults of the transformer are in the classes of its settings, from which its architecture and factory take them;
those of the heads are also in the configs of their factories. The documentation shows them.
"""

import inspect
import re
from copy import deepcopy
from dataclasses import MISSING, fields

import pytest
import spacy
from places import REPOSITORY
from thinc.api import Config

from spacy_lsbillm import architectures
from spacy_lsbillm.backbone import BackboneSettings, BaseSettings, LoraSettings
from spacy_lsbillm.layers import MAX_BATCH_ITEMS, LossSettings, ModelSettings, ShimSettings
from spacy_lsbillm.pipeline import billm_transformer, sequence_labeler, span_labeler

pytestmark = pytest.mark.any_stack

DOCS = REPOSITORY / "docs" / "settings.md"

FACTORIES = {"transformer": "billm_transformer", "sequence_labeler": "sequence_labeler", "textcat": "textcat"}


@pytest.fixture(scope="module")
def nlp():
    return spacy.blank("en")


def add(nlp, path, value):
    """Add a component with one setting, without reading a base."""
    component, *blocks, name = path.split(".")
    config = {}
    inner = config
    for block in blocks:
        inner = inner.setdefault(block, {})
        if block == "model":
            inner["@architectures"] = {
                "transformer": "spacy-lsbillm.BiLLMModel.v1",
                "textcat": "spacy-lsbillm.PooledTextCat.v1",
                "sequence_labeler": "spacy-lsbillm.SequenceLabeler.v1",
            }[component]
            if component == "transformer":
                inner["name"] = "nobody/reads-it"
    inner[name] = value
    try:
        nlp.add_pipe(FACTORIES[component], name=component, config=config)
    finally:
        if component in nlp.pipe_names:
            nlp.remove_pipe(component)


NUMBERS = ("max_batch_items", "model.window", "model.overlap", "model.heads_first", "model.learn_rate_scale")


@pytest.mark.parametrize("name", [*NUMBERS, "model.depth", "model.lora.r", "model.lora.alpha", "model.lora.dropout"])
@pytest.mark.parametrize("value", ["64", "many", True, [4], float("inf"), float("nan"), -1])
def test_what_is_no_number_in_its_range_is_refused(nlp, name, value):
    with pytest.raises(ValueError) as raised:
        add(nlp, f"transformer.{name}", value)
    text = str(raised.value)
    assert name.rpartition(".")[2] in text and (repr(value) in text or str(value) in text)


@pytest.mark.parametrize("name", ["use_rslora", "use_dora"])
@pytest.mark.parametrize("value", ["no", "true", None, 2, 0, [], 0.5])
def test_switches_inside_of_a_block_are_true_or_false(nlp, name, value):
    """Otherwise any text would count as true."""
    with pytest.raises(
        ValueError, match=re.escape(f"lora.{name} = {value!r} is not allowed: it must be true or false")
    ):
        add(nlp, f"transformer.model.lora.{name}", value)


@pytest.mark.parametrize("name", ["gradient_checkpointing", "add_bos_token"])
@pytest.mark.parametrize("value", ["no", "true", 2, [], 0.5])
def test_switches_are_true_or_false(nlp, name, value):
    with pytest.raises(ValueError, match=name):
        add(nlp, f"transformer.model.{name}", value)


@pytest.mark.parametrize("value", [5, None, True, 0.5, {}, [], "", [""], ["q_proj", None], [1]])
def test_targets_are_names_or_an_expression(nlp, value):
    with pytest.raises(ValueError, match=re.escape(f"lora.target_modules = {value!r} is not allowed")):
        add(nlp, "transformer.model.lora.target_modules", value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("max_batch_items", 1),
        ("model.window", 2),
        ("model.overlap", 0),
        ("model.learn_rate_scale", 1),
        ("model.heads_first", 10**9),
        ("model.lora.r", 1),
        ("model.lora.alpha", 1e-9),
        ("model.lora.dropout", 0),
        ("model.lora.target_modules", ["q_proj"]),
        ("model.lora.use_dora", True),
    ],
)
def test_the_edges_are_allowed(nlp, path, value):
    add(nlp, f"transformer.{path}", value)


def signature(function):
    """The defaults of a function, by argument."""
    arguments = inspect.signature(function).parameters.values()
    return {argument.name: argument.default for argument in arguments if argument.default is not argument.empty}


def held(settings):
    """The defaults of a settings class."""
    return {field.name: field.default for field in fields(settings) if field.default is not MISSING}


def simple(block):
    """Settings of a config that are not blocks."""
    return {key: value for key, value in block.items() if not isinstance(value, dict) and not key.startswith("@")}


def in_common(one, other):
    """The values of the keys that both have."""
    both = one.keys() & other.keys()
    assert both
    return [{key: values[key] for key in sorted(both)} for values in (one, other)]


# Settings without a default, with another one in the `make_…` function, or set by the component.
NO_DEFAULTS = {"name", "get_spans", "lora"}
TRANSFORMER = billm_transformer.DEFAULT_CONFIG


def test_the_defaults_of_the_model_are_the_same_everywhere():
    config, made = TRANSFORMER["model"], signature(architectures.create_billm_model_v1)
    assert config.keys() - {"@architectures"} == made.keys() | NO_DEFAULTS
    assert simple(config).keys() - NO_DEFAULTS == made.keys() - NO_DEFAULTS
    assert simple(config) | made == made | simple(config)
    assert config["lora"] == made["lora"] == LoraSettings().as_block()
    for settings in (BaseSettings, BackboneSettings, ShimSettings, ModelSettings):
        # The backbone by itself has no adapter unless requested.
        one, other = in_common(held(settings), {key: value for key, value in made.items() if key not in NO_DEFAULTS})
        assert one == other, settings.__name__
    assert TRANSFORMER["max_batch_items"] == MAX_BATCH_ITEMS
    assert in_common(signature(billm_transformer.BiLLMTransformer), TRANSFORMER)[0] == {
        "max_batch_items": TRANSFORMER["max_batch_items"],
        "set_extra_annotations": billm_transformer.null_annotation_setter,
    }


@pytest.mark.parametrize(
    ("module", "component", "architecture"),
    [
        (sequence_labeler, sequence_labeler.SequenceLabeler, architectures.create_sequence_labeler_v1),
        (span_labeler, span_labeler.SpanLabeler, architectures.create_span_labeler_v1),
    ],
)
def test_the_defaults_of_a_head_are_the_same_everywhere(module, component, architecture):
    config = simple(module.DEFAULT_CONFIG)
    made = signature(component)
    loss = made.pop("loss", None)
    if loss is not None:
        assert loss == LossSettings()
        made |= held(LossSettings)
    assert config == {key: made[key] for key in config}
    # `make_…` has no defaults, so only the config decides.
    assert not signature(getattr(module, f"make_{component.__name__.replace('Labeler', '_labeler').lower()}"))
    assert simple(module.DEFAULT_CONFIG["model"]) == signature(architecture)


def test_the_documentation_shows_the_defaults():
    text = DOCS.read_text(encoding="utf8")
    shown = Config().from_str(
        "[components]\n" + re.search(r"```ini\n(\[components.transformer\].*?)```", text, re.DOTALL)[1]
    )
    block = shown["components"]["transformer"]
    assert block.pop("factory") == "billm_transformer"
    name, default = block["model"].pop("name"), TRANSFORMER["model"]["name"]
    assert name != default and f'default is `"{default}"`' in text
    expected = deepcopy(TRANSFORMER)
    del expected["set_extra_annotations"], expected["model"]["name"]
    assert block == expected
    rows = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE))))
    assert rows >= simple(TRANSFORMER).keys() | (TRANSFORMER["model"].keys() - {"@architectures"})
