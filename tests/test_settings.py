"""Values of settings that are of a wrong kind: spaCy's config system lets some of them through."""

import re

import pytest
import spacy

FACTORIES = {"transformer": "billm_transformer", "sequence_labeler": "sequence_labeler", "textcat": "textcat"}


@pytest.fixture(scope="module")
def nlp():
    return spacy.blank("en")


def add(nlp, path, value):
    """Add a component with one setting; it reads no base."""
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
    """Any text would count as true."""
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
