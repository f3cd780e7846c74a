"""The table of tasks: a cell for each kind of task and model on a little data, and what is made of the results."""

import json

import pytest
from filelock import FileLock
from tiny import TEXTS

from benchmarks.record import read_result, write_result
from benchmarks.tasks import __main__ as command
from benchmarks.tasks import models, sets
from benchmarks.tasks.cell import run_cell
from benchmarks.tasks.models import MODELS, Budget, Compared
from benchmarks.tasks.report import report

LIMITS = {"train": 8, "dev": 4, "test": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of data sets of each kind."""
    folder = tmp_path_factory.mktemp("data")
    labels = ["book", "play", "weather", "play"]
    for split in sets.SPLITS:
        for name in ("labelling/snips_slots", "classification/snips_intents", "multiple_choice/arc_easy"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        rows = [[f"{word}\t{'B-x' if word in ('boston', 'paris') else 'O'}" for word in text.split()] for text in TEXTS]
        (folder / "labelling/snips_slots" / f"{split}.iob").write_text("\n\n".join("\n".join(row) for row in rows * 4))
        lines = [{"text": text, "label": label} for text, label in zip(TEXTS, labels, strict=True)]
        (folder / "classification/snips_intents" / f"{split}.jsonl").write_text(
            "\n".join(json.dumps(line) for line in lines * 4)
        )
        question = json.dumps({"question": "wet?", "choices": ["sand", "water"], "answer": 1})
        (folder / "multiple_choice/arc_easy" / f"{split}.jsonl").write_text("\n".join([question] * 12))
    return folder


def cell(name, model, data, tmp_path, seed=0):
    result = tmp_path / "results" / "8" / name / model / f"{seed}.json"
    run_cell(name, model, seed, data=data, work=tmp_path / "w", limits=LIMITS, budget=Budget(2, 4), result=result)
    return read_result(result)


@pytest.mark.parametrize("name", ["snips_slots", "snips_intents", "arc_easy"])
def test_a_cell_of_each_kind(make_base, data, tmp_path, monkeypatch, name):
    monkeypatch.setitem(MODELS, "causal", Compared("", base=str(make_base()), unmask="none"))
    found = cell(name, "causal", data, tmp_path)
    assert 0 <= found["test"] <= 1
    # Scored before the first step and after each round, and chosen by the best of those.
    assert [step for step, _ in found["dev_by_step"]] == [0, 2, 4]
    assert found["dev"] == max(score for _, score in found["dev_by_step"])
    assert found["split"]["sizes"] == {"train": 8, "dev": 4, "test": 12 if name == "arc_easy" else 16}
    assert found["base"]["name"] == str(make_base())
    assert {"versions", "machine", "commit", "config", "seed", "train_seconds"} <= set(found)
    assert cell(name, "causal", data, tmp_path, seed=0)["dev_by_step"] == found["dev_by_step"]


@pytest.mark.parametrize("name", ["snips_slots", "snips_intents"])
def test_the_cnn_has_the_same_budget(data, tmp_path, name):
    found = cell(name, "cnn", data, tmp_path)
    assert [step for step, _ in found["dev_by_step"]] == [0, 2, 4]
    assert found["base"] is None


def test_the_table_has_means_and_spreads(tmp_path, capsys):
    for model, scores in (("causal", [0.5, 0.6, 0.7]), ("bidirectional", [0.8])):
        for seed, score in enumerate(scores):
            path = tmp_path / "2000" / "wnut17" / model / f"{seed}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"set": "wnut17", "model": model, "test": score}))
    report(tmp_path)
    assert "| wnut17 | 60.0 ± 10.0 | 80.0 (1) |" in capsys.readouterr().out
    assert "<svg" in (tmp_path / "2000" / "plot.svg").read_text()


def test_finished_cells_and_those_of_others_are_left_alone(make_base, data, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "causal", Compared("", base=str(make_base()), unmask="none"))
    ran = []
    monkeypatch.setattr(command, "run_cell", lambda *given, result, **_: ran.append(given) or write(result))

    def write(result):
        found = {"dev": 0.5, "test": 0.5}
        write_result(result, found)
        return found

    def run():
        arguments = [
            "--data",
            data,
            "--models",
            "causal",
            "--seeds",
            "0",
            "1",
            "--results",
            tmp_path,
            "--examples",
            "8",
        ]
        given = ["tasks", "run", "--sets", "snips_slots", *map(str, arguments)]
        monkeypatch.setattr("sys.argv", given)
        command.main()

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "8-examples-4-epochs-1000-dev" / "snips_slots" / "causal"
    folder.mkdir(parents=True)
    with FileLock(folder / "1.lock"):
        run()
    assert ran == [("snips_slots", "causal", 0)]
    run()
    assert ran == [("snips_slots", "causal", 0), ("snips_slots", "causal", 1)]


def test_a_base_that_is_missing_is_named_before_the_first_cell(data, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "causal", Compared("", base="assets/none"))
    monkeypatch.setattr("sys.argv", ["tasks", "run", "--data", str(data), "--models", "causal"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="there is no assets/none"):
        command.main()
    with pytest.raises(SystemExit, match="there are no results"):
        report(tmp_path / "nothing")


def test_every_set_and_model_is_named_in_the_table():
    assert all(set(model.kinds) <= set(models.COMPONENT) for model in MODELS.values())
    assert {one.kind for one in sets.SETS.values()} <= set(models.SCORE)
