"""spaCy's commands and ours, on a small corpus and the shipped configs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import spacy
from pipelines import build, examples, trained, vectors
from spacy.cli.evaluate import evaluate
from spacy.cli.init_config import fill_config
from spacy.cli.train import train
from spacy.tokens import DocBin
from spacy.util import load_config
from tiny import TEXTS
from typer.testing import CliRunner
from weasel.util.config import load_project_config

from spacy_lsbillm.cli import app

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT = REPOSITORY / "configs" / "default.cfg"


@pytest.fixture
def corpus(tmp_path):
    docs = [example.reference for example in examples(spacy.blank("en"))]
    DocBin(docs=docs * 8).to_disk(tmp_path / "corpus.spacy")
    return tmp_path / "corpus.spacy"


def overrides(corpus, base, **more):
    return {
        "paths.train": str(corpus),
        "paths.dev": str(corpus),
        "components.transformer.model.name": str(base),
        "training.max_steps": 40,
        "training.max_epochs": 0,
        "training.eval_frequency": 20,
        "training.batcher.size": 100,
        "training.optimizer.learn_rate.warmup_steps": 2,
        **more,
    }


def test_nothing_is_left_to_fill_in_the_config(tmp_path):
    fill_config(tmp_path / "filled.cfg", DEFAULT, silent=True)
    assert load_config(tmp_path / "filled.cfg") == load_config(DEFAULT)


def test_the_project_file_is_valid_and_names_files_that_exist():
    config = load_project_config(REPOSITORY)
    assert list(config["workflows"]) == ["all", "compare"]
    made = {output for command in config["commands"] for output in command.get("outputs", [])}
    needed = {path for command in config["commands"] for path in command.get("deps", [])}
    assert all((REPOSITORY / path).exists() for path in needed - made)


@pytest.mark.parametrize("unmask", ["all", "bits:0101"])
def test_train_evaluate_and_load(make_base, corpus, tmp_path, unmask):
    more = {"components.transformer.model.unmask": unmask}
    scores = []
    for name in ("one", "two"):
        train(DEFAULT, tmp_path / name, overrides=overrides(corpus, make_base(), **more))
        metrics = evaluate(str(tmp_path / name / "model-best"), corpus, output=tmp_path / "metrics.json", silent=True)
        scores.append((metrics["ents_f"], metrics["cats_micro_f"], metrics["cats_score"]))
    assert scores[0] == scores[1], "the same seed must give the same scores"
    assert scores[0][1] > 0.5
    assert json.loads((tmp_path / "metrics.json").read_text())["ents_f"] == pytest.approx(scores[0][0])
    nlp = spacy.load(tmp_path / "one" / "model-best")
    assert nlp.get_pipe("transformer").mask.notation == unmask
    assert nlp.config["components"]["transformer"]["model"]["store_base"] == "copy"
    assert len(vectors(nlp)) == len(TEXTS)


def test_bad_settings_stop_training_before_it_begins(make_base, corpus, tmp_path):
    for key, value, said in (
        ("unmask", "011", "do not divide"),
        ("unmask", 11, "bits:11"),
        ("name", "./missing", "missing"),
    ):
        changed = overrides(corpus, make_base(), **{f"components.transformer.model.{key}": value})
        with pytest.raises(ValueError, match=said):
            train(DEFAULT, tmp_path / "out", overrides=changed)
        assert not (tmp_path / "out" / "model-last").exists()


def test_masks_command(make_base, tmp_path):
    trained(make_base(), unmask="0101", steps=1).to_disk(tmp_path / "pipeline")
    result = CliRunner().invoke(app, ["masks", str(tmp_path / "pipeline")])
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines()]
    for layer, word in enumerate(("causal", "bidirectional", "causal", "bidirectional")):
        assert [str(layer), word] in lines
    assert 'unmask = "0101"' in result.output


@pytest.mark.parametrize("pipeline", ["no_such_package", "empty", "other"])
def test_masks_command_on_something_else(tmp_path, pipeline):
    (tmp_path / "empty").mkdir()
    spacy.blank("en").to_disk(tmp_path / "other")
    name = pipeline if pipeline.startswith("no_") else str(tmp_path / pipeline)
    result = CliRunner().invoke(app, ["masks", name])
    assert result.exit_code == 1
    assert name in result.output.replace("\n", "")


def test_the_commands_are_found_without_importing_anything_by_hand():
    found = subprocess.run(
        [sys.executable, "-m", "spacy", "lsbillm", "--help"], capture_output=True, text=True, check=True
    )
    assert "masks" in found.stdout


def test_an_untrained_pipeline_is_saved_and_loaded(make_base, tmp_path):
    build(make_base(), heads=()).to_disk(tmp_path / "pipeline")
    assert not spacy.load(tmp_path / "pipeline").get_pipe("transformer").model.shims[0].loaded
    result = CliRunner().invoke(app, ["masks", str(tmp_path / "pipeline")])
    assert result.exit_code == 1
    assert "never initialised" in result.output
