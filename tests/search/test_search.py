"""The search for a mask: strategies, the shared database, significance, and the command from end to end."""

import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import spacy
from corpora import run, write_config, write_corpus
from heads import CNN, fit, labeler
from heads import corpus as examples_of
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span
from spacy.util import load_config

from spacy_lsbillm.cli.search import StrategyName
from spacy_lsbillm.errors import MaskError, SettingError, StorageError
from spacy_lsbillm.search.experiment import Experiment
from spacy_lsbillm.search.extension import extension_test, pairs_of
from spacy_lsbillm.search.masks import all_masks, check_masks
from spacy_lsbillm.search.on_test import scores_on_test
from spacy_lsbillm.search.run import RemoteTrainer, run_all
from spacy_lsbillm.search.significance import f1, paired_bootstrap
from spacy_lsbillm.search.strategies import (
    STRATEGIES,
    Greedy,
    Grid,
    Halving,
    Plan,
    create_strategy,
    trainings_of,
)
from spacy_lsbillm.search.study import Study
from spacy_lsbillm.search.trainer import model_folder, trainer
from spacy_lsbillm.search.training import Training
from spacy_lsbillm.search.ways import find_same_way
from spacy_lsbillm.training.quiet_run import run_training

pytestmark = pytest.mark.any_stack

SEEDS = (0, 1)


def follow(strategy, score):
    """Run what a strategy requests, until it requests nothing more."""
    results = {}
    while stage := strategy.stage(results):
        missing = [training for training in stage if training not in results]
        assert missing, "a stage that is finished was asked for again"
        results[missing[0]] = score(missing[0])
    return results, strategy.best(results)


def test_all_masks_in_their_order():
    assert all_masks(2) == ["bits:00", "bits:01", "bits:10", "bits:11"]
    assert len(set(all_masks(4))) == 16
    assert find_same_way("none", all_masks(2), 4) == "bits:00"
    assert find_same_way("layers:2-3", all_masks(2), 4) == "bits:01"
    assert find_same_way("layers:1", all_masks(2), 4) is None
    with pytest.raises(MaskError, match="'bits:11' and 'all' unmask the same layers"):
        check_masks(["bits:11", "all"], 4)


@given(st.lists(st.floats(0, 1), min_size=16, max_size=16, unique=True))
def test_a_grid_finds_the_best(scores):
    masks = all_masks(4)
    true = dict(zip(masks, scores, strict=True))
    results, chosen = follow(Grid(masks, SEEDS, 100), lambda training: {training.mask: true[training.mask]})
    assert chosen == max(true, key=true.get)
    assert len(results) == 32


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=16, max_size=16, unique=True), st.permutations(range(16)))
def test_halving_takes_a_third_of_the_steps_and_finds_the_best_if_shared_trainings_tell(scores, order):
    masks, seeds = all_masks(4), (0, 1, 2)
    true = dict(zip(masks, scores, strict=True))
    strategy = Halving(masks, seeds, 800)
    results, chosen = follow(strategy, lambda training: {mask: true[mask] for mask in training.masks})
    assert chosen == max(true, key=true.get)
    assert sum(training.steps for training in results) <= 0.35 * 16 * 3 * 800
    assert len(results) == strategy.n_trainings
    # Results of a grid in the same storage are not counted.
    more = results | {Training(mask, seed, 800): {mask: true[mask]} for mask, seed in product(masks, seeds)}
    assert set(trainings_of(strategy, more)) == set(results)
    # In the middle of the second stage: the trainings of the first and all of the second.
    begun = dict(list(results.items())[:5])
    assert [len(training.masks) for training in trainings_of(strategy, begun)] == [16] * 3 + [1] * 6
    # Whatever the scores of shared trainings are, the best of the masks that were trained alone is chosen.
    luck = {mask: float(place) for mask, place in zip(masks, order, strict=True)}
    results, chosen = follow(
        strategy,
        lambda training: luck if len(training.masks) > 1 else {training.mask: true[training.mask] + training.seed},
    )
    first = {training.mask for training in results if len(training.masks) == 1}
    assert first == set(sorted(masks, key=lambda mask: -luck[mask])[:6])
    assert chosen == max(first, key=true.get)
    assert Counter(training.mask for training in results)[chosen] == 3


@pytest.mark.parametrize(("n_groups", "seeds"), [(0, (0,)), (1, (0,)), (1, (0, 1)), (2, (5, 3, 1))])
def test_halving_with_few_masks_or_seeds(n_groups, seeds):
    masks = all_masks(n_groups) if n_groups else ["all"]
    strategy = Halving(masks, seeds, 10)
    results, chosen = follow(strategy, lambda training: {mask: masks.index(mask) for mask in training.masks})
    assert chosen == masks[-1]
    assert len(results) <= strategy.n_trainings


def test_greedy_goes_from_the_output_side_and_keeps_what_helps():
    helps = {"0": 0.0, "1": 0.1, "2": -0.2, "3": 0.3}

    def score(training):
        gained = sum(helps[str(i)] for i, bit in enumerate(training.mask.removeprefix("bits:")) if bit == "1")
        return {training.mask: gained}

    results, chosen = follow(Greedy(4, (0,), 10), score)
    assert chosen == "bits:0101"
    assert [training.mask for training in results] == ["bits:0000", "bits:0001", "bits:0011", "bits:0101", "bits:1101"]


def test_a_strategy_is_added_by_its_name_alone_and_an_unknown_name_is_an_error(monkeypatch):
    plan = Plan(["none", "all"], (0, 1), 10, [2], {"none": 1.0, "all": 1.0})
    made = {name: type(create_strategy(name, plan)) for name in STRATEGIES}
    assert made.items() >= {"grid": Grid, "halving": Halving, "greedy": Greedy}.items()
    with pytest.raises(SettingError, match=r"strategy = 'another' is not allowed\. Use one of: 'grid', 'halving'"):
        create_strategy("another", plan)
    # The command offers exactly those that there are.
    assert [name.value for name in StrategyName] == list(STRATEGIES)
    monkeypatch.setitem(STRATEGIES, "another", lambda plan: Grid(plan.ways[:1], plan.seeds, plan.steps))
    assert create_strategy("another", plan).n_trainings == 2


# The database


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'search.db'}"


def test_trainings_elsewhere_are_made_together_and_each_once(url):
    both, done = threading.Barrier(2, timeout=60), []

    def train(training):
        # Both threads must be here at once.
        both.wait()
        done.append(training)
        return 0.5, {}

    plan = Grid(["none", "all"], SEEDS, 1)
    run_all(plan, Study(url, {}), train, "trainings", remote=RemoteTrainer(train, 2, lambda: None))
    assert Counter(done) == Counter(plan.stage({}))


def test_an_error_elsewhere_ends_what_is_under_way(url):
    begun, stopped = threading.Event(), threading.Event()

    def train(training):
        if training.mask == "none":
            begun.wait(60)
            raise SettingError("the node is another")
        begun.set()
        assert stopped.wait(60)
        raise SettingError("it was stopped")

    remote = RemoteTrainer(train, 2, stopped.set)
    with pytest.raises(SettingError, match="the node is another"):
        run_all(Grid(["none", "all"], (0,), 1), Study(url, {}), train, "trainings", remote=remote)
    # A training that was stopped is released.
    assert Study(url, {}).trainings() == set()


def test_each_training_is_run_once_by_several_threads_of_several_studies(url):
    trainings = [Training(mask, seed, 1) for mask, seed in product(all_masks(2), SEEDS)]
    done = []

    def work():
        study = Study(url, {"config": "a"})
        while len(study.results()) < len(trainings):
            study.run_next(trainings, lambda training: (done.append(training), time.sleep(0.02))[1] or (0.5, {"n": 1}))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(done) == Counter(trainings)
    assert set(Study(url, {"config": "a"}).results()) == set(trainings)


def killed_process(url):
    """A process of its own that has finished one training and is running the second."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        study = Study(url, {"config": "a"})
        trainings = [Training("all", seed, 1) for seed in range(4)]
        study.run_next(trainings, lambda training: (0.1, {}))
        study.run_next(trainings, lambda training: (os.write(writing, b"begun"), signal.pause()))
        os._exit(1)
    os.close(writing)
    assert os.read(reading, 5) == b"begun"
    os.close(reading)
    return process


def test_what_a_killed_process_was_doing_is_done_again_and_nothing_else(url):
    process = killed_process(url)
    study = Study(url, {"config": "a"})
    trainings = [Training("all", seed, 1) for seed in range(4)]
    done = []
    # While it is alive, no other process takes its training.
    while (training := study.run_next(trainings, lambda _: (0.2, {}))) is not None:
        done.append(training.seed)
    assert done == [2, 3]
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    while (training := study.run_next(trainings, lambda _: (0.2, {}))) is not None:
        done.append(training.seed)
    assert done == [2, 3, 1]
    assert {training.seed: found.score for training, found in study.results().items()} == {
        0: 0.1,
        1: 0.2,
        2: 0.2,
        3: 0.2,
    }


def test_a_training_that_fails_may_be_tried_again(url):
    study = Study(url, {"config": "a"})
    training = Training("all", 0, 1)
    with pytest.raises(ZeroDivisionError):
        study.run_next([training], lambda training: 1 / 0)
    with pytest.raises(SettingError, match="score nan"):
        study.run_next([training], lambda training: (float("nan"), {}))
    assert study.run_next([training], lambda training: (1.0, {})) == training
    assert study.run_next([training], lambda training: (0.5, {})) is None
    assert study.results()[training].score == 1.0


def test_what_another_plan_has_left_is_not_done(url):
    """A search was stopped and continues with another strategy."""
    trainings = [Training("all", seed, 1) for seed in range(4)]
    with pytest.raises(KeyboardInterrupt):
        run_all(Grid(["none", "all"], (0, 1), 1), Study(url, {}), interrupted, "trainings")
    done = []
    run_all(Grid(["all"], (1,), 1), Study(url, {}), lambda training: (done.append(training), (1.0, {}))[1], "trainings")
    assert done == [trainings[1]]


def interrupted(training):
    raise KeyboardInterrupt


def test_what_another_process_has_given_up_still_counts(url, monkeypatch):
    """A database may be unreachable for longer than the other processes wait."""
    monkeypatch.setattr("spacy_lsbillm.search.study.is_dead", lambda trial: True)
    study = Study(url, {"config": "a"})
    training = Training("all", 0, 1)

    def train(_):
        # Taking a training releases those that it considers dead.
        Study(url, {"config": "a"}).run_next([Training("none", 0, 1)], lambda _: (0.1, {}))
        return 0.5, {"seconds": 1}

    assert study.run_next([training], train) == training
    assert study.results()[training].score == 0.5 and study.results()[training].record == {"seconds": 1}


@pytest.mark.parametrize("proc", ["", "/proc"])
def test_a_training_without_signs_of_life_is_given_up(url, monkeypatch, proc, tmp_path):
    """With and without a way to look for a process; a zombie does not count as alive."""
    monkeypatch.setattr("spacy_lsbillm.search.liveness.PROC", Path(proc or tmp_path / "none"))
    monkeypatch.setattr("spacy_lsbillm.search.liveness.GRACE", 0.5)
    process = killed_process(url)
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    time.sleep(0.6)
    study = Study(url, {"config": "a"})
    trainings = [Training("all", seed, 1) for seed in range(2)]
    done = []
    while (training := study.run_next(trainings, lambda _: (0.2, {}))) is not None:
        done.append(training.seed)
    assert 1 in done
    os.waitpid(process, 0)


def test_a_search_knows_its_corpora_by_content(config, corpus, tmp_path):
    def identity(path, **overrides):
        return Experiment.of(load_config(path, overrides=overrides, interpolate=False)).identity

    first = identity(config)
    moved = shutil.copy(corpus, tmp_path / "moved.spacy")
    assert identity(config, **{"paths.dev": str(moved)}) == first
    (tmp_path / "folder").mkdir()
    shutil.copy(corpus, tmp_path / "folder" / "a.spacy")
    in_folder = identity(config, **{"paths.dev": str(tmp_path / "folder")})
    assert in_folder != first
    shutil.copy(corpus, tmp_path / "folder" / "b.spacy")
    assert identity(config, **{"paths.dev": str(tmp_path / "folder")}) != in_folder
    assert identity(config, **{"corpora.train.limit": 3}) != first


def test_a_folder_of_another_search_is_refused(searched, tmp_path):
    config, _ = searched
    other = ("--storage", f"sqlite:///{tmp_path / 'other.db'}", "--training.dropout", "0.3")
    output = search(config, tmp_path / "out", "--masks", "none all", *other, code=1)
    assert "belongs to another search; it differs in: training" in output


def test_short_trainings_are_whole_ones_in_little(config):
    changes = {"components.transformer.model.heads_first": 8, "training.max_steps": 16}
    experiment = Experiment.of(load_config(config, overrides=changes, interpolate=False))
    schedule = {"@schedules": "constant_then.v1", "rate": 0.1, "steps": 8}
    schedule["schedule"] = {"@schedules": "slanted_triangular.v1", "max_rate": 0.1, "num_steps": 16}
    experiment.config["training"]["optimizer"]["learn_rate"] = schedule
    short = experiment.config_of(Training("all", 0, 4))
    assert short["components"]["transformer"]["model"]["heads_first"] == 2
    rate = short["training"]["optimizer"]["learn_rate"]
    assert rate["steps"] == 2 and rate["schedule"]["num_steps"] == 4
    assert experiment.config["training"]["optimizer"]["learn_rate"]["steps"] == 8


def test_a_short_training_is_judged_where_it_ends(config, tmp_path):
    overrides = {"training.max_steps": 16, "training.eval_frequency": 4}
    experiment = Experiment.of(load_config(config, overrides=overrides, interpolate=False))
    run = experiment.run(Training("all", 0, 5), tmp_path / "short", -1)
    # spaCy always evaluates after the first step.
    assert [step for step, _ in run.curve] == [0, 5]
    assert not (tmp_path / "short").exists()
    assert experiment.config_of(Training("all", 0, 16))["training"]["eval_frequency"] == 4
    # A training that is shorter than the interval between evaluations; numbers may be variables.
    overrides |= {"training.eval_frequency": "${paths.every}", "paths.every": 100, "training.patience": 8}
    experiment = Experiment.of(load_config(config, overrides=overrides, interpolate=False))
    assert [step for step, _ in experiment.run(Training("all", 0, 16), tmp_path / "full", -1).curve] == [0, 16]
    with pytest.raises(SettingError, match=r"training\.max_epochs = 2: a search compares"):
        Experiment.of(load_config(config, overrides={"training.max_epochs": 2}, interpolate=False))


def test_the_loss_of_a_training_is_that_of_all_its_steps(config, tmp_path):
    found = {}
    for every in (1, 8):
        changes = {"training.max_steps": 8, "training.eval_frequency": every}
        run = run_training(load_config(config, overrides=changes, interpolate=False), None)
        found[every] = run.losses["sequence_labeler"]
    assert found[1] == pytest.approx(found[8], rel=1e-3)


def test_a_test_uses_no_model_of_a_killed_training(config, corpus, tmp_path, monkeypatch):
    experiment = Experiment.of(load_config(config, overrides={"training.max_steps": 8}, interpolate=False))
    training = Training("all", 0, 8)

    def killed(run_config, folder, use_gpu=-1):
        (folder / "model-best").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("spacy_lsbillm.search.experiment.run_training", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer(experiment, tmp_path)(training)
    tested = scores_on_test(experiment, "all", [0], corpus, "ents_f", tmp_path)
    trainer(experiment, tmp_path / "again")(training)
    assert tested.scores == scores_on_test(experiment, "all", [0], corpus, "ents_f", tmp_path / "again").scores


@pytest.mark.parametrize("spans_key", [None, "sc"])
def test_counts_on_the_test_set_are_those_behind_its_scores(config, tmp_path, spans_key):
    """Also where the scorer of the head leaves out what a document was not annotated for, and white space."""
    nlp = spacy.blank("xx")
    labeler(nlp, tok2vec=CNN, spans_key=spans_key)
    examples = examples_of(nlp, spans_key)
    fit(nlp, examples)
    docs = [example.reference for example in examples]
    city, artist, *_ = docs
    city.user_data["annotated"] = artist.user_data["annotated"] = ["city"]
    words = ["paris", "\n"]
    white = Doc(nlp.vocab, words)
    spans = [Span(white, 0, 2, label="city")]
    if spans_key is None:
        artist.set_ents([])
        white.set_ents(spans)
    else:
        artist.spans[spans_key] = []
        white.spans[spans_key] = spans
    DocBin(docs=[*docs, white], store_user_data=True).to_disk(tmp_path / "test.spacy")
    experiment = Experiment.of(load_config(config, overrides={"training.max_steps": 8}, interpolate=False))
    place = model_folder(tmp_path, Training("all", 0, 8)) / "model-best"
    place.mkdir(parents=True)
    nlp.to_disk(place)
    score = "ents_f" if spans_key is None else f"spans_{spans_key}_f"
    tested = scores_on_test(experiment, "all", [0], tmp_path / "test.spacy", score, tmp_path)
    assert f1(tested.counts.sum(axis=1)).tolist() == pytest.approx(tested.scores)
    assert tested.counts[0, 1].tolist() == [0, 0, 0]


def test_a_storage_of_another_search_is_refused(url, tmp_path):
    Study(url, {"config": "a", "paths.train": "x"})
    with pytest.raises(StorageError, match="belongs to another search"):
        Study(url, {"config": "a", "paths.train": "y"})
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at" * 10)
    with pytest.raises(StorageError, match="cannot be used"):
        Study(f"sqlite:///{tmp_path / 'text.db'}", {})


# Significance


def test_the_bootstrap_knows_the_difference():
    rng = np.random.default_rng(0)
    gold = rng.integers(1, 4, size=(3, 400))
    weak, strong = (np.stack([hits := rng.binomial(gold, p), gold - hits, gold - hits], axis=-1) for p in (0.6, 0.8))
    found = paired_bootstrap(strong, weak)
    assert found.mean == pytest.approx(f1(strong.sum(1)).mean() - f1(weak.sum(1)).mean())
    assert found.low < found.mean < found.high
    assert found.p < 0.01
    assert paired_bootstrap(weak, weak).p == 1.0
    other = np.stack([hits := rng.binomial(gold, 0.6), gold - hits, gold - hits], axis=-1)
    assert paired_bootstrap(weak, other).p > 0.05


PAPER = {
    "0010": "0011",
    "0100": "0101 0110 0111",
    "0110": "0111",
    "1000": "1001 1010 1011 1100 1101 1110 1111",
    "1010": "1011",
    "1100": "1101 1110 1111",
    "1110": "1111",
}


def test_the_pairs_are_those_of_the_paper():
    expected = [(f"bits:{one}", f"bits:{other}") for one, others in PAPER.items() for other in others.split()]
    for n_layers in (4, 8, 32):
        assert pairs_of(all_masks(4), n_layers) == expected
    assert pairs_of(["none", "layers:0", "from:3", "layers:0,3", "all"], 4) == [
        ("layers:0", "layers:0,3"),
        ("layers:0", "all"),
    ]


def test_extending_masks_to_the_right():
    rng = np.random.default_rng(0)
    noise = {mask: rng.normal(0, 0.01, 3).tolist() for mask in all_masks(4)}
    # Each group helps more, the closer it is to the output.
    worth = {mask: 0.02 * int(mask.removeprefix("bits:")[::-1], 2) for mask in all_masks(4)}
    helps = extension_test({mask: [worth[mask] + one for one in noise[mask]] for mask in noise}, 8)
    assert len(helps.pairs) == 17
    assert helps.mean == pytest.approx(np.mean([pair.gain for pair in helps.pairs]))
    assert helps.p < 0.01
    assert helps.p_permuted < 0.01
    hurts = extension_test({mask: [one - worth[mask] for one in noise[mask]] for mask in noise}, 8)
    assert hurts.p > 0.99
    assert hurts.p_permuted > 0.95
    same = extension_test({mask: [0.5, 0.5] for mask in noise}, 8)
    assert (same.mean, same.p, same.p_permuted) == (0.0, 1.0, 1.0)
    # One pair is not enough for a test.
    assert extension_test({mask: noise[mask] for mask in ("bits:0000", "bits:1000", "bits:1001")}, 8) is None


def test_the_same_layers_under_two_names_count_once():
    scores = {"bits:10": [0.5, 0.6], "bits:11": [0.7, 0.8], "all": [0.7, 0.8], "layers:0-2": [0.6, 0.7]}
    found = extension_test(scores, 4)
    assert [(pair.before, pair.after) for pair in found.pairs] == [
        ("bits:10", "bits:11"),
        ("bits:10", "layers:0-2"),
        ("layers:0-2", "bits:11"),
    ]


def test_chance_is_not_taken_for_help():
    """Masks that make no difference.

    At a level of 5%, the permutation test rejects in 5% of cases; the t-test, whose pairs are not independent, in more.
    """
    rng = np.random.default_rng(1)
    found = [extension_test({mask: rng.normal(0, 1, 1).tolist() for mask in all_masks(4)}, 4) for _ in range(100)]
    assert sum(one.p_permuted < 0.05 for one in found) <= 11
    assert sum(one.p < 0.05 for one in found) > sum(one.p_permuted < 0.05 for one in found)


@settings(max_examples=30)
@given(st.lists(st.tuples(*[st.integers(0, 9)] * 3), min_size=1, max_size=5))
def test_f1_is_that_of_precision_and_recall(rows):
    for (right, wrong, missed), score in zip(rows, f1(np.array(rows)), strict=True):
        precision = right / (right + wrong) if right + wrong else 0.0
        recall = right / (right + missed) if right + missed else 0.0
        assert score == pytest.approx(2 * precision * recall / (precision + recall) if right else 0.0)


# The command


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.spacy")


@pytest.fixture
def config(make_base, corpus, tmp_path):
    return write_config(tmp_path / "c.cfg", corpus, make_base(), ["sequence_labeler"])


QUICK = ["--training.max_steps", "8", "--training.eval_frequency", "8", "--seeds", "0"]


def search(config, output, *more, code=0, command="search-mask"):
    return " ".join(run("lsbillm", command, config, output, *QUICK, *more, code=code).split())


GRID = ["--groups", "2", "--strategy", "grid"]


@pytest.fixture(scope="module")
def grid(make_base, corpus, tmp_path_factory):
    """The config, the folder and the output of a search whose folder several tests use."""
    folder = tmp_path_factory.mktemp("grid")
    config = write_config(folder / "c.cfg", corpus, make_base(), ["sequence_labeler"])
    return config, folder / "out", search(config, folder / "out", *GRID, "--test", corpus)


@pytest.fixture
def searched(grid, tmp_path):
    """A copy of the search's folder, to continue in."""
    config, folder, output = grid
    shutil.copytree(folder, tmp_path / "out")
    return config, output


def test_from_a_config_to_the_best_mask(searched, corpus, tmp_path, monkeypatch):
    config, output = searched
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["mask"] for row in results["rows"]} == set(all_masks(2))
    best = max(results["rows"], key=lambda row: row["mean"])
    assert results["chosen"] == best["mask"]
    assert f"{best['mask']} is best on dev" in output
    assert {"layers 0-3 causal", "layers 0-1 causal, layers 2-3 bidirectional"} <= {
        r["layers"] for r in results["rows"]
    }
    # The chosen mask, none and all were scored on the test set.
    tested = {one["mask"] for one in results["test"]}
    assert {results["chosen"], "bits:00", "bits:11"} == tested
    assert set(results["differences_on_test"]) == tested - {results["chosen"]}
    # With two groups there is one pair, which is not enough for a test; with three extended masks there is one.
    assert results["extension"] is None
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == page.count("</svg>") == 2
    assert "http" not in page.replace("http://www.w3.org", "").replace("https://matplotlib.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")
    chosen = (tmp_path / "out" / "best.cfg").read_text()
    assert f'unmask = "{results["chosen"]}"' in chosen
    # In a second run nothing is trained again, and the table is the same.
    table = (tmp_path / "out" / "table.md").read_text()
    monkeypatch.setattr("spacy_lsbillm.search.experiment.run_training", None)
    search(config, tmp_path / "out", *GRID, "--test", corpus)
    assert (tmp_path / "out" / "table.md").read_text() == table
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rows"] == results["rows"]


@pytest.mark.parametrize(("heads", "score"), [("sequence_labeler", "ents_f"), ("textcat", "cats_micro_f")])
def test_what_is_counted_on_the_test_set_is_what_is_scored(make_base, corpus, tmp_path, heads, score):
    path = write_config(tmp_path / "c.cfg", corpus, make_base(), [heads])
    experiment = Experiment.of(load_config(path, overrides={"training.max_steps": 60}, interpolate=False))
    trainer(experiment, tmp_path)(Training("all", 0, 60))
    tested = scores_on_test(experiment, "all", [0], corpus, score, tmp_path)
    assert tested.scores[0] > 0
    assert f1(tested.counts.sum(axis=1)).tolist() == pytest.approx(tested.scores)


@pytest.mark.slow
def test_the_paired_test_is_in_every_report(searched, tmp_path, monkeypatch):
    """In a folder in which another search has trained two of the masks."""
    config, _ = searched
    trained = []
    monkeypatch.setattr(
        "spacy_lsbillm.search.experiment.run_training", lambda *given: (trained.append(given), run_training(*given))[1]
    )
    output = search(config, tmp_path / "out", "--masks", "bits:00 layers:0 layers:0,2 bits:11")
    assert len(trained) == 2
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["mask"] for row in results["rows"]} >= {"bits:00", "layers:0", "layers:0,2", "bits:11"}
    found = results["extension"]
    assert sorted((pair["before"], pair["after"]) for pair in found["pairs"]) == [
        ("bits:10", "bits:11"),
        ("layers:0", "bits:10"),
        ("layers:0", "bits:11"),
        ("layers:0", "layers:0,2"),
    ]
    (words,) = {pair["layers_before"] for pair in found["pairs"] if pair["before"] == "layers:0"}
    assert words == "layer 0 bidirectional, layers 1-3 causal"
    assert 0 <= found["p"] <= 1
    assert f"| layers:0 | {words} | 3 |" in (tmp_path / "out" / "table.md").read_text()
    assert "Of 4 pairs of a mask and one that extends it" in output
    assert "extends it" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_halving_from_end_to_end(config, tmp_path):
    out = tmp_path / "out"
    search(config, out, "--groups", "2")
    results = json.loads((out / "results.json").read_text())
    # One training that all four share, and one each for the best two.
    assert Counter(row["steps"] for row in results["rows"]) == {8: 2}
    assert (results["steps"], results["grid_steps"]) == (8 + 2 * 8, 4 * 8)
    assert [row["mask"] for row in results["shared"]] == all_masks(2)
    ranking = sorted(results["shared"], key=lambda row: -row["mean"])
    assert {row["mask"] for row in results["rows"]} == {row["mask"] for row in ranking[:2]}
    assert results["chosen"] == max(results["rows"], key=lambda row: row["mean"])["mask"]
    assert results["extension"] is None
    table, page = (out / "table.md").read_text(), (out / "report.html").read_text()
    assert "Shared trainings: 1 of 8 steps" in table
    assert "Ways in shared trainings, 8 steps" in page
    # The predictor no longer needs its own training.
    trained = sorted(out.glob("models/*/*"))
    shown = run("lsbillm", "predict-mask", config, out, "--groups", "2", *QUICK)
    assert f"| 1 | {ranking[0]['mask']} |" in " ".join(shown.split())
    assert [one["mask"] for one in json.loads((out / "ranking.json").read_text())["ranking"]] == [
        row["mask"] for row in ranking
    ]
    assert sorted(out.glob("models/*/*")) == trained


def test_bad_input_is_refused_before_any_training(config, tmp_path):
    unlabelled = tmp_path / "texts.jsonl"
    unlabelled.write_text('{"text": "book a table"}\n')
    without = tmp_path / "without.spacy"
    DocBin(docs=[spacy.blank("xx").make_doc("book a table")]).to_disk(without)
    for more, message in (
        (("--groups", "3"), "3 bits do not divide 4 layers into groups of equal size"),
        (("--groups", "two"), "--groups 'two': give whole numbers"),
        (("--groups", "0"), "--groups '0': give each number once, none below 1"),
        (("--groups", "-1"), "none below 1"),
        (("--groups", "2,0"), "none below 1"),
        (("--groups", "64"), "64 groups of layers are not allowed. Use 1 to 16"),
        (("--seeds", "1,1"), "give each number once"),
        (("--masks", "from:9"), "there is no layer 9"),
        (("--masks", "none bits:00"), "unmask the same layers"),
        (("--groups", "1,2", "--strategy", "greedy"), "greedy takes one number of groups"),
        (("--paths.dev", tmp_path / "none.spacy"), "there is no development corpus"),
        (("--test", tmp_path / "none.spacy"), "there is no test corpus"),
        (("--groups", "2", "--paths.dev", without), "has no annotation that ents_f could be computed from, so no"),
        (("--groups", "2", "--test", unlabelled), "has no annotation that ents_f could be computed from"),
        (("--training.max_steps", "0"), "training.max_steps = 0"),
        (("--training.max_steps", "4"), "training.max_steps = 4 is too short for a training under 16 masks"),
        (
            ("--groups", "2", "--training.score_weights", '{"ents_g": 1.0}'),
            "score_weights names 'ents_g', which the pipeline does not compute",
        ),
        (("--groups", "2", "--gpu-id", "3"), ""),
    ):
        output = search(config, tmp_path / "out", *more, code=1)
        assert message in output, output
    assert not (tmp_path / "out").exists()
    assert "there is no config" in search(tmp_path / "none.cfg", tmp_path / "out", code=1)


def test_a_storage_that_breaks_during_a_search_is_named(tmp_path):
    """Optuna's own error does not mention the disk, and is not of a kind that the commands show."""
    path = tmp_path / "search.db"
    study = Study(f"sqlite:///{path}", {})

    def train(training):
        path.write_bytes(b"no database" * 100)
        return 0.5, {}

    with pytest.raises(StorageError, match=r"search\.db' cannot be used: .*database"):
        study.run_next([Training("all", 0, 1)], train)
