"""Messages about settings that cannot work: the cause and the remedy, once, without a library's own error."""

import json
import warnings

import numpy as np
import pytest
import spacy
from pipelines import GOLD, LISTENER, NER, TEXTCAT, build, examples, train, vectors
from spacy.tokens import Span
from spacy.training import Example
from thinc.api import Adam
from tiny import TEXTS
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from spacy_lsbillm.cli import app
from spacy_lsbillm.data import read_records
from spacy_lsbillm.errors import AdapterError, BaseError, DataError, SettingError
from spacy_lsbillm.pipeline.class_scorers import make_textcat_scorer

pytestmark = pytest.mark.any_stack

LABELER = {"@architectures": "spacy-lsbillm.SequenceLabeler.v1", "tok2vec": LISTENER}
OTHER_KIND = {"@architectures": "spacy.Tok2VecListener.v1", "width": 64, "upstream": "*"}


def damage(nlp, number):
    """The adapter of a training that has diverged."""
    for value in nlp.get_pipe("transformer").model.shims[0].backbone.adapter_parameters().values():
        value.data.fill_(number)


@pytest.mark.parametrize("fold", ["always", "never"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_an_adapter_that_has_diverged(make_base, tmp_path, fold, number):
    nlp = build(make_base(), heads=(), fold_adapter=fold)
    nlp.initialize()
    vectors(nlp)
    damage(nlp, number)
    for _ in range(2):
        with pytest.raises(AdapterError, match=r"NaN.*training has diverged.*learn_rate"):
            vectors(nlp)
    nlp.to_disk(tmp_path / "saved")
    with pytest.raises(AdapterError, match="training has diverged"):
        vectors(spacy.load(tmp_path / "saved"))


def test_a_training_that_diverges(make_base):
    nlp = build(make_base())
    train(nlp, 6, Adam(1e20))
    with pytest.raises(AdapterError, match="training has diverged"):
        list(nlp.pipe(TEXTS))


def test_a_base_whose_states_are_no_numbers(make_base, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(make_base())
    model.model.norm.weight.data.fill_(1e38)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(make_base()).save_pretrained(tmp_path)
    for dtype, said in (("float16", 'dtype = "bfloat16" or "float32"'), ("float32", "Its weights are damaged")):
        nlp = build(tmp_path, heads=(), dtype=dtype)
        nlp.initialize()
        nlp.get_pipe("transformer").model.shims[0].backbone.causal_lm.model.norm.weight.data.fill_(float("inf"))
        with pytest.raises(BaseError, match=f"NaN or infinite with dtype {dtype}.*{said}"):
            vectors(nlp)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, r"bitsandbytes, 4-bit"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
    ],
)
@pytest.mark.parametrize("part", [None, "text_config"])
def test_a_base_that_is_stored_quantised(make_base, tmp_path, said, shown, part):
    base = make_base("gemma3_text")
    (tmp_path / "base").mkdir()
    for path in base.iterdir():
        (tmp_path / "base" / path.name).write_bytes(path.read_bytes())
    config = json.loads((base / "config.json").read_text())
    whole = {"model_type": "gemma3", "text_config": config} if part else config
    (tmp_path / "base" / "config.json").write_text(json.dumps({**whole, "quantization_config": said}))
    with pytest.raises(BaseError, match=rf"stored quantised \({shown}\).*original base.*quantization = \"nf4\""):
        build(tmp_path / "base", heads=()).initialize()
    result = CliRunner().invoke(app, ["check-base", str(tmp_path / "base")])
    assert result.exit_code == 1
    assert "stored quantised" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("factory", "model"), [("ner", NER), ("textcat", TEXTCAT), ("sequence_labeler", LABELER), ("tagger", None)]
)
def test_a_listener_of_another_kind(make_base, factory, model):
    model = {**(model or {"@architectures": "spacy.Tagger.v2"}), "tok2vec": OTHER_KIND}
    nlp = build(make_base(), heads=())
    nlp.add_pipe(factory, config={"model": model})
    said = rf"'{factory}' has a Tok2VecListener \(width 64\).*'transformer' is not one.*TransformerListener\.v1"
    with pytest.raises(SettingError, match=said):
        nlp.initialize(lambda: examples(nlp))


def test_a_tok2vec_component_beside_the_transformer(make_base):
    nlp = build(make_base(), heads=())
    nlp.add_pipe("tok2vec")
    nlp.add_pipe("ner", config={"model": {**NER, "tok2vec": {**OTHER_KIND, "width": 96, "upstream": "tok2vec"}}})
    data = examples(nlp)
    nlp.initialize(lambda: data)
    nlp.update(data)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_component_that_was_made_for_another_width(make_base, frozen):
    other = build(make_base(hidden_size=64), heads=("ner",))
    train(other, 1)
    nlp = build(make_base(), heads=())
    nlp.add_pipe("ner", source=other)
    with (
        nlp.select_pipes(disable=["ner"] if frozen else []),
        pytest.raises(
            SettingError, match=r"'ner' was made for vectors of width 64.*'transformer' gives vectors of width 32"
        ),
    ):
        nlp.initialize(lambda: examples(nlp))


CONLLU = ["1\tplay\tplay\tVERB\tVB\t_\t0\troot\t_\tO", "2\tjazz\tjazz\tNOUN\tNN\t_\t1\tobj\t_\tB-genre"]


@pytest.mark.parametrize(
    "lines",
    [
        CONLLU,
        [*CONLLU, "", *CONLLU],
        [CONLLU[0], "", *CONLLU],
        ["1-2\tdu\t_\t_\tO", "1\tde\tde\tADP\tO", "2\tle\tle\tDET\tO"],
        ["0 play VB O", "1 jazz NN B-genre"],
    ],
)
def test_columns_that_count_the_tokens(tmp_path, lines):
    (tmp_path / "x.conll").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"x\.conll, line \d: the first column counts the tokens .*CoNLL-U"):
        list(read_records(tmp_path / "x.conll"))


@pytest.mark.parametrize("lines", [["1 O", "2 O"], ["gate NN O", "1 CD O", "2 CD O"], ["1 CD O"], ["2 CD O", "3 CD O"]])
def test_numbers_that_are_tokens(tmp_path, lines):
    (tmp_path / "x.conll").write_text("\n".join(lines) + "\n")
    [record] = read_records(tmp_path / "x.conll")
    assert record.content["tokens"] == [line.split()[0] for line in lines]


def test_many_labels_are_one_warning(make_base):
    nlp = build(make_base(), heads=())
    nlp.add_pipe("sequence_labeler", config={"model": LABELER})
    data = examples(nlp)
    nlp.initialize(lambda: data)
    new = []
    for example, (spans, _) in zip(data, GOLD, strict=True):
        reference = example.reference.copy()
        span = reference.char_span(*spans[0][:2])
        for i in range(5):
            reference.ents = [Span(reference, span.start, span.end, label=f"new{len(new)}{i}")]
            new.append(Example(example.predicted, reference.copy()))
    for act in (lambda: nlp.update(new, sgd=Adam(0.01)), lambda: nlp.evaluate(new)):
        with pytest.warns(UserWarning, match=r"'new00'.*like 'new11', .* and 14 more") as raised:
            act()
        assert len(raised) == 1
        assert len(str(raised[0].message)) < 500
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            act()


def test_many_classes_are_one_warning():
    nlp = spacy.blank("en")
    data = []
    for i in range(20):
        reference = nlp.make_doc("a text")
        reference.cats = {f"new{i}": 1.0}
        predicted = nlp.make_doc("a text")
        predicted.cats = {f"known{n}": 1 / 30 for n in range(30)}
        data.append(Example(predicted, reference))
    labels = [f"known{n}" for n in range(30)]
    with pytest.warns(UserWarning, match=r"'new0' .*like 'new1', .* and 14 more.* and 25 more") as raised:
        scores = make_textcat_scorer()(data, labels=labels)
    assert len(raised) == 1
    assert np.isclose(scores["cats_macro_f"], 0)
