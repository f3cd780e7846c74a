"""The shipped configs, and their generator."""

import importlib.util
import re
import shutil
import warnings

import pytest
import spacy
from corpora import quick, run, write_config, write_corpus
from places import REPOSITORY
from spacy.cli.init_config import fill_config
from spacy.cli.train import train
from spacy.training.initialize import init_nlp
from spacy.util import load_config
from transformers import AutoModelForCausalLM
from weasel.util.config import load_project_config

from spacy_lsbillm.backbone.size import BaseSize, size_of
from spacy_lsbillm.errors import BaseError
from spacy_lsbillm.training.config import DEVICES, KNOWN, training_config
from spacy_lsbillm.training.fitted import SIZES, fitted_to

pytestmark = pytest.mark.any_stack

CONFIGS = sorted((REPOSITORY / "configs").glob("*.cfg"))
# One score per component that is above zero after some steps on a corpus that is memorised.
LEARNED = {
    "ner": "ents_f",
    "sequence_labeler": "ents_f",
    "span_labeler": "spans_sc_f",
    "textcat": "cats_micro_f",
    "textcat_multilabel": "cats_macro_auc",
    "tagger": "tag_acc",
    "morphologizer": "pos_acc",
    "parser": "dep_uas",
    "senter": "sents_f",
    "spancat": "spans_sc_f",
    "spancat_singlelabel": "spans_sc_f",
    "span_finder": "spans_sc_f",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.spacy")


def make_configs():
    spec = importlib.util.spec_from_file_location("make_configs", REPOSITORY / "scripts" / "make_configs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_configs_are_what_the_script_writes():
    texts = make_configs().config_texts()
    folder = REPOSITORY / "configs"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.cfg")} == set(texts)
    for path, text in texts.items():
        said = f"{path} is not current: run python scripts/make_configs.py configs"
        assert (folder / path).read_text(encoding="utf8") == text, said


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_nothing_is_left_to_fill(tmp_path, path):
    before, filled = fill_config(tmp_path / "filled.cfg", path, silent=True)
    assert filled.to_str() == before.to_str()
    assert "Nothing to auto-fill" in run("init", "fill-config", path, tmp_path / "again.cfg")
    assert load_config(tmp_path / "again.cfg") == load_config(path)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_config_trains_and_its_score_counts(make_base, corpus, tmp_path, path):
    train(path, tmp_path / "out", overrides=quick(corpus, make_base(), steps=5))
    nlp = spacy.load(tmp_path / "out" / "model-best")
    weights = {name: weight for name, weight in nlp.config["training"]["score_weights"].items() if weight}
    assert sum(weights.values()) == pytest.approx(1)
    # With a weight on a score that no component computes, the best model would be chosen at random.
    assert set(weights) <= set(nlp.meta["performance"])
    stored = nlp.config["components"]["transformer"]["model"]["store_base"]
    assert stored == ("reference" if path.stem == "real" else "copy")


@pytest.mark.parametrize("component", [name for name in KNOWN if name != "doc_cleaner"])
def test_every_known_component_learns(make_base, corpus, tmp_path, component):
    config = write_config(tmp_path / "c.cfg", corpus, make_base(), [component], heads_first=1, depth=2)
    steps = 40 if component == "spancat_singlelabel" else 25
    overrides = {"training.max_steps": steps, "training.eval_frequency": steps}
    if component == "sequence_labeler":
        # One linear layer, initialised to zero.
        overrides["training.optimizer.learn_rate.initial_rate"] = 0.01
    train(config, tmp_path / "out", overrides=overrides)
    scores = spacy.load(tmp_path / "out" / "model-last").meta["performance"]
    assert component in LEARNED, f"add the score that {component} raises to LEARNED"
    assert scores[LEARNED[component]] > 0.3
    weights = load_config(config)["training"]["score_weights"]
    assert sum(weight or 0 for weight in weights.values()) == pytest.approx(1)


def test_span_finder_suggests_to_a_later_spancat(make_base, corpus, tmp_path):
    config = write_config(tmp_path / "c.cfg", corpus, make_base(), ["span_finder", "spancat"], depth=2)
    assert load_config(config)["training"]["annotating_components"] == ["transformer", "span_finder"]
    train(config, tmp_path / "out", overrides={"training.max_steps": 50, "training.eval_frequency": 50})
    assert spacy.load(tmp_path / "out" / "model-last").meta["performance"]["spans_sc_f"] > 0.3


def test_the_device_decides_types_and_sizes():
    cpu, gpu = (training_config("base", device=device) for device in DEVICES)
    assert cpu["components"]["transformer"]["model"]["dtype"] == "float32"
    assert gpu["components"]["transformer"]["model"]["dtype"] == "bfloat16"
    assert gpu["training"]["batcher"]["size"] > cpu["training"]["batcher"]["size"]
    rates = [config["training"]["optimizer"]["learn_rate"] for config in (cpu, gpu)]
    assert rates[0]["initial_rate"] > rates[1]["initial_rate"]
    for config, rate in zip((cpu, gpu), rates, strict=True):
        assert config["training"]["max_steps"] == rate["total_steps"]


def test_the_size_of_a_base_is_read_from_its_config_alone(make_base, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(make_base(), base)
    for path in base.glob("*.safetensors"):
        path.unlink()
    size = size_of(base)
    model = AutoModelForCausalLM.from_pretrained(make_base())
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (size.layers, size.width) == (model.config.num_hidden_layers, model.config.hidden_size)
    with pytest.raises(BaseError, match=r"config\.json"):
        size_of(tmp_path)


@pytest.mark.parametrize(
    ("parameters", "source"),
    [(5e6, "embedded base"), (135e6, "SmolLM2"), (494e6, "published"), (8e9, "published")],
)
def test_the_size_decides_the_rates(parameters, source):
    fitted = fitted_to(BaseSize(layers=30, width=576, parameters=int(parameters)))
    assert source in fitted.source
    for device, plain in DEVICES.items():
        config = training_config("base", device=device, fitted=fitted)
        training, model = config["training"], config["components"]["transformer"]["model"]
        rate = training["optimizer"]["learn_rate"]
        assert rate["initial_rate"] == fitted.learn_rate
        assert model["learn_rate_scale"] == fitted.learn_rate_scale
        assert (model["lora"]["r"], model["lora"]["dropout"]) == (fitted.r, 0.05)
        assert rate["total_steps"] == training["max_steps"] == (fitted.cpu_steps if device == "cpu" else plain.steps)
        assert rate["warmup_steps"] == training["max_steps"] * fitted.warmup


def test_larger_bases_have_lower_rates_for_their_adapters():
    rates = [fitted.learn_rate * fitted.learn_rate_scale for fitted in SIZES]
    assert rates == sorted(rates, reverse=True)
    assert [fitted.most for fitted in SIZES[:-1]] == sorted(fitted.most for fitted in SIZES[:-1])
    assert SIZES[-1].most is None


@pytest.mark.parametrize(
    ("steps", "warmup", "frequency"), [(72, 8, 12), (1000, 100, 200), (18, 2, 3), (17, 2, 2), (3, 1, 1)]
)
@pytest.mark.parametrize("fitted", [None, SIZES[1]])
def test_the_number_of_steps_decides_the_whole_schedule(steps, warmup, frequency, fitted):
    training = training_config("base", steps=steps, fitted=fitted)["training"]
    rate = training["optimizer"]["learn_rate"]
    assert (training["max_steps"], rate["total_steps"]) == (steps, steps)
    assert (rate["warmup_steps"], training["eval_frequency"]) == (warmup, frequency)


def steps_of(max_steps, eval_frequency, warmup, total):
    return {
        "training.max_steps": max_steps,
        "training.eval_frequency": eval_frequency,
        "training.optimizer.learn_rate.warmup_steps": warmup,
        "training.optimizer.learn_rate.total_steps": total,
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (steps_of(18, 100, 2, 18), "eval_frequency = 100 is more than training.max_steps = 18: .* untrained model"),
        (steps_of(18, 3, 100, 1000), "warmup_steps = 100 does not end before training.max_steps = 18"),
        (steps_of(0, 3, 18, 18), "warmup_steps = 18 does not end before .*total_steps = 18"),
        (steps_of(18, 18, 2, 18), None),
        (steps_of(1, 1, 1, 1), None),
        (steps_of(0, 200, 100, 1000), None),
    ],
)
def test_steps_that_do_not_fit_together_are_warned_of_before_training(make_base, corpus, tmp_path, settings, said):
    config = write_config(tmp_path / "c.cfg", corpus, make_base(), ["ner"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        init_nlp(load_config(config, overrides=settings))
    found = [str(warning.message) for warning in caught if "--steps" in str(warning.message)]
    assert len(found) == (said is not None)
    assert said is None or re.search(said, found[0])


def test_settings_of_the_model_come_before_those_that_fit_its_base():
    config = training_config("base", fitted=SIZES[0], learn_rate_scale=0.1, lora=None)
    model = config["components"]["transformer"]["model"]
    assert (model["learn_rate_scale"], model["lora"]) == (0.1, None)


def test_settings_of_the_model_reach_the_config():
    config = training_config("base", lang="de", pipeline=["tagger"], unmask="from:2", store_base="merged")
    block = config["components"]["transformer"]["model"]
    assert (block["name"], block["unmask"], block["store_base"]) == ("base", "from:2", "merged")
    assert (config["nlp"]["lang"], config["nlp"]["pipeline"]) == ("de", ["transformer", "tagger"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lang": "qq"}, "qq"),
        ({"pipeline": []}, "at least one"),
        ({"pipeline": ["ner", "nerr"]}, "'nerr'.*textcat_multilabel"),
        ({"pipeline": ["ner", "ner"]}, "more than once"),
        ({"pipeline": ["textcat", "textcat_multilabel"]}, "doc.cats"),
        ({"pipeline": ["spancat", "spancat_singlelabel"]}, "doc.spans"),
        ({"pipeline": ["span_labeler", "spancat"]}, "doc.spans"),
        ({"pipeline": ["doc_cleaner", "ner"]}, "name it last"),
        ({"pipeline": ["doc_cleaner"]}, "name it last"),
        ({"device": "tpu"}, "'cpu', 'gpu'"),
        ({"steps": 0}, "steps = 0 is not allowed: it must be a whole number of at least 1"),
        ({"steps": 7.5}, "steps = 7.5 is not allowed"),
        ({"unmask": "some"}, "unmask = 'some'"),
        ({"store_base": "no"}, "store_base"),
    ],
)
def test_what_is_not_allowed_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        training_config("base", **settings)


def test_a_doc_cleaner_is_put_behind_what_listens():
    config = training_config("base", pipeline=["ner", "doc_cleaner"])
    assert config["nlp"]["pipeline"] == ["transformer", "ner", "doc_cleaner"]
    assert "_.trf_data" in config["components"]["doc_cleaner"]["attrs"]
    assert config["training"]["score_weights"]["ents_f"] == 1.0


def test_the_project_file_is_valid_and_names_files_that_exist():
    config = load_project_config(REPOSITORY)
    assert list(config["workflows"]) == ["all", "compare", "real", "task"]
    made = {output for command in config["commands"] for output in command.get("outputs", [])}
    needed = {path for command in config["commands"] for path in command.get("deps", [])}
    assert all((REPOSITORY / path).exists() for path in needed - made)
