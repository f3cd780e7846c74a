"""spaCy's own commands, on a config and on a trained pipeline with the component."""

import importlib
import json
import shutil

import pytest
import spacy
import srsly
from corpora import make_docs, run, write_config, write_corpus
from pipelines import same, vectors
from spacy.tokens import DocBin
from spacy.util import load_config
from tiny import LAYERS, TEXTS

LABELS = {"ner": ["artist", "city", "playlist"], "textcat": ["book", "play", "weather"]}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.spacy")


@pytest.fixture(scope="module")
def config(make_base, corpus, tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("config") / "c.cfg", corpus, make_base())


@pytest.fixture(scope="module")
def pipeline(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run("train", config, "--output", folder, "--gpu-id", "-1", "--training.max_steps", "40")
    return folder / "model-best"


@pytest.fixture(scope="module")
def multilabel(make_base, corpus, tmp_path_factory):
    """A pipeline with thresholds."""
    folder = tmp_path_factory.mktemp("multilabel")
    config = write_config(folder / "c.cfg", corpus, make_base(), ["textcat_multilabel", "spancat"])
    run("train", config, "--output", folder, "--training.max_steps", "40")
    return folder / "model-last"


def labels_of(config, folder):
    run("init", "labels", config, folder)
    return {path.stem: json.loads(path.read_text(encoding="utf8")) for path in folder.iterdir()}


def test_init_labels(config, tmp_path):
    found = labels_of(config, tmp_path / "labels")
    assert sorted(found) == ["ner", "textcat"]
    assert sorted(found["textcat"]) == LABELS["textcat"]
    assert {label for actions in found["ner"].values() for label in actions} - {""} == set(LABELS["ner"])


def test_debug_config(config):
    output = run("debug", "config", config, "--show-functions", "--show-variables")
    assert "spacy-lsbillm.BiLLMModel.v1" in output
    assert "spacy_lsbillm.architectures" in output


def test_debug_config_names_a_bad_setting(config):
    for setting, value, said in (("unmask", "some", "unmask = 'some'"), ("dtype", "int4", "dtype = 'int4'")):
        with pytest.raises(ValueError, match=said):
            run("debug", "config", config, f"--components.transformer.model.{setting}", value)
    output = run("debug", "config", config, "--components.transformer.model.unknown_setting", "1", code=1)
    assert "unknown_setting" in output


def test_debug_data(config, tmp_path):
    # It treats fewer than 100 documents as an error.
    corpus = write_corpus(tmp_path / "large.spacy", copies=25)
    output = run("debug", "data", config, "--verbose", "--no-format", "--paths.train", corpus)
    assert "Pipeline can be initialized with data" in output
    assert "Training pipeline: transformer, ner, textcat" in output
    for labels in LABELS.values():
        assert all(label in output for label in labels)


@pytest.mark.parametrize("component", ["transformer", "ner", "textcat"])
def test_debug_model(config, component):
    output = run("debug", "model", config, component, "-DIM", "-PAR", "-GRAD", "-ATTR", "-P0", "-P1", "-P2", "-P3")
    assert "Initialized the model with the training corpus" in output
    assert "Successfully ended analysis" in output
    if component == "transformer":
        assert "'billm'" in output
        before, after = output.split("STEP 1")
        assert "dim nO: None" in before
        assert "dim nO: 32" in after


def test_debug_diff_config(config):
    output = run("debug", "diff-config", config)
    assert "spacy-lsbillm.BiLLMModel.v1" in output
    assert "No diff to show" in run("debug", "diff-config", config, "--compare-to", config)


def test_train_gives_a_pipeline_that_has_learned(pipeline, corpus, tmp_path):
    (tmp_path / "displacy").mkdir()
    output = tmp_path / "metrics.json"
    shown = run("evaluate", pipeline, corpus, "--output", output, "--displacy-path", tmp_path / "displacy")
    metrics = json.loads(output.read_text(encoding="utf8"))
    assert metrics["ents_f"] > 0.5
    assert metrics["cats_micro_f"] > 0.5
    assert metrics["speed"] > 0
    assert f"{100 * metrics['ents_f']:.2f}" in shown
    (html,) = (tmp_path / "displacy").glob("*.html")
    text = html.read_text(encoding="utf8")
    assert "boston" in text
    assert any(label in text for label in LABELS["ner"])


def test_benchmark_accuracy_is_evaluate(pipeline, corpus, tmp_path):
    run("benchmark", "accuracy", pipeline, corpus, "--output", tmp_path / "one.json")
    run("evaluate", pipeline, corpus, "--output", tmp_path / "two.json")
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert one.keys() == two.keys()
    # Whether an adapter is folded, and so the last digits, depends on what else uses the base at the moment.
    assert one["cats_ece"] == pytest.approx(two["cats_ece"], abs=1e-5)
    assert {**one, "speed": 0, "cats_ece": 0} == {**two, "speed": 0, "cats_ece": 0}


def test_the_same_seed_gives_the_same_pipeline(config, tmp_path):
    found = []
    for name in ("one", "two"):
        more = ["--components.transformer.model.unmask", "bits:0101", "--training.max_steps", "6"]
        # Whether an adapter is folded, and so the last digits, depends on what else uses the base at the moment.
        run("train", config, "--output", tmp_path / name, *more, "--components.transformer.model.fold_adapter", "never")
        folder = tmp_path / name / "model-last"
        nlp = spacy.load(folder)
        stored = ("transformer/adapter/adapter_model.safetensors", "ner/model", "textcat/model")
        found.append((nlp.meta["performance"], [(folder / path).read_bytes() for path in stored], vectors(nlp)))
    assert found[0][:2] == found[1][:2]
    assert same(found[0][2], found[1][2], tolerance=0)
    assert nlp.get_pipe("transformer").mask.notation == "bits:0101"
    assert len(found[0][2]) == len(TEXTS)


def test_train_refuses_a_gpu_that_is_not_there(config, tmp_path):
    # thinc reports that CuPy is missing or that there is no GPU, or CUDA that there is no such device.
    with pytest.raises(Exception, match=r"(?i)gpu|cuda|device"):
        run("train", config, "--output", tmp_path / "out", "--gpu-id", "99")
    assert not (tmp_path / "out" / "model-last").exists()


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [("unmask", "bits:011", "do not divide"), ("unmask", "11", "bits:11"), ("name", "./missing", "missing")],
)
def test_bad_settings_stop_training_before_it_begins(config, tmp_path, setting, value, said):
    with pytest.raises(ValueError, match=said):
        run("train", config, "--output", tmp_path / "out", f"--components.transformer.model.{setting}", value)
    assert not (tmp_path / "out" / "model-last").exists()


def sourced(config, pipeline, path, heads, **training):
    """A config whose transformer and `heads` are sourced from a trained pipeline."""
    changed = load_config(config)
    for name in ("transformer", *heads):
        changed["components"][name] = {"source": str(pipeline)}
    changed["training"].update(training)
    changed.to_disk(path, interpolate=False)
    return path


def test_train_on_from_a_sourced_pipeline(config, pipeline, corpus, tmp_path):
    path = sourced(config, pipeline, tmp_path / "c.cfg", ["ner", "textcat"])
    assert "Nothing to auto-fill" in run("init", "fill-config", path, tmp_path / "filled.cfg")
    before = vectors(spacy.load(pipeline))
    for rate, unchanged in ((0.0, True), (0.002, False)):
        folder = tmp_path / str(rate)
        # thinc's averages start at zero, so they are inexact after few steps.
        optimizer = {"use_averages": "false", "learn_rate.initial_rate": rate}
        more = [part for key, value in optimizer.items() for part in (f"--training.optimizer.{key}", value)]
        run("train", path, "--output", folder, "--training.max_steps", 6, *more)
        nlp = spacy.load(folder / "model-last")
        assert same(before, vectors(nlp)) == unchanged
        assert nlp.meta["performance"]["ents_f"] > 0.5


def test_train_a_new_head_on_a_frozen_sourced_transformer(config, pipeline, tmp_path):
    keep = {"frozen_components": ["transformer", "ner"], "annotating_components": ["transformer"]}
    path = sourced(config, pipeline, tmp_path / "c.cfg", ["ner"], **keep)
    run("train", path, "--output", tmp_path / "out")
    source, nlp = spacy.load(pipeline), spacy.load(tmp_path / "out" / "model-last")
    assert same(vectors(source), vectors(nlp))
    assert [doc.to_json()["ents"] for doc in nlp.pipe(TEXTS)] == [doc.to_json()["ents"] for doc in source.pipe(TEXTS)]
    assert nlp.meta["performance"]["cats_micro_f"] > 0.5


def test_package(pipeline, tmp_path, monkeypatch):
    run("package", pipeline, tmp_path, "--name", "requests", "--version", "1.2.3", "--build", "none")
    folder = tmp_path / "xx_requests-1.2.3"
    requirements = json.loads((folder / "meta.json").read_text(encoding="utf8"))["requirements"]
    assert [name for name in requirements if name.startswith("spacy-lsbillm>=")]
    assert [name for name in requirements if name.startswith("spacy-transformers>=")]
    # setup.py does this when a wheel is built, which would need a network here.
    shutil.copy(folder / "meta.json", folder / "xx_requests")
    monkeypatch.syspath_prepend(folder)
    nlp = importlib.import_module("xx_requests").load()
    assert same(vectors(nlp), vectors(spacy.load(pipeline)))


def test_assemble(config, tmp_path):
    labels_of(config, tmp_path / "labels")
    changed = load_config(config)
    for name in LABELS:
        reader = {"@readers": "spacy.read_labels.v1", "path": str(tmp_path / "labels" / f"{name}.json")}
        changed["initialize"]["components"][name] = {"labels": reader}
    changed.to_disk(tmp_path / "c.cfg", interpolate=False)
    run("assemble", tmp_path / "c.cfg", tmp_path / "assembled")
    nlp = spacy.load(tmp_path / "assembled")
    assert {name: sorted(nlp.get_pipe(name).labels) for name in LABELS} == LABELS
    assert len(nlp.get_pipe("transformer").mask.unmasked) == LAYERS
    assert set(nlp(TEXTS[0]).cats) == set(LABELS["textcat"])


def test_apply(pipeline, corpus, tmp_path):
    nlp = spacy.load(pipeline)
    texts = tmp_path / "texts.jsonl"
    srsly.write_jsonl(texts, [{"text": text} for text in TEXTS])
    for data, expected in ((texts, TEXTS), (corpus, [doc.text for doc in make_docs()] * 4)):
        run("apply", pipeline, data, tmp_path / "out.spacy", "--batch-size", "8", "--force")
        docs = list(DocBin().from_disk(tmp_path / "out.spacy").get_docs(nlp.vocab))
        assert [doc.text for doc in docs] == expected
        for doc, again in zip(docs, nlp.pipe(TEXTS), strict=False):
            assert [(e.text, e.label_) for e in doc.ents] == [(e.text, e.label_) for e in again.ents]
            assert doc.cats == pytest.approx(again.cats, abs=1e-4)


def test_benchmark_speed(pipeline, corpus):
    output = run("benchmark", "speed", pipeline, corpus, "--batches", "30", "--batch-size", "4", "--warmup", "1")
    assert "Mean" in output
    assert "words/s" in output


@pytest.mark.parametrize(("component", "score"), [("textcat_multilabel", "cats_macro_f"), ("spancat", "spans_sc_f")])
def test_find_threshold(multilabel, corpus, component, score):
    output = run("find-threshold", multilabel, corpus, component, "threshold", score, "--n_trials", "3")
    assert "Best threshold" in output


def test_find_function():
    output = run("find-function", "spacy-lsbillm.BiLLMModel.v1", "--registry", "architectures").replace("\n", "")
    assert "spacy_lsbillm/architectures.py" in output


def test_info(pipeline):
    output = run("info", pipeline)
    assert "'transformer', 'ner', 'textcat'" in output
    assert "billm_transformer" in (pipeline / "config.cfg").read_text(encoding="utf8")
