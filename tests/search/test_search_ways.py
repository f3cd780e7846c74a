"""A search over masks, copies, depth and warm-up: names of ways, prices, budgets, the choice, the report."""

import json
import sqlite3
from collections import Counter
from itertools import pairwise, product

import pytest
from corpora import run, write_config, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.util import load_config, registry

import spacy_lsbillm.layers.billm_model as billm_model
from spacy_lsbillm.errors import MaskError, SettingError
from spacy_lsbillm.search.budget import Budget
from spacy_lsbillm.search.candidates import combine_ways, parse_values, use_stored_names
from spacy_lsbillm.search.cost_picture import spread
from spacy_lsbillm.search.experiment import Experiment
from spacy_lsbillm.search.outcome import Outcome, Row, Spending
from spacy_lsbillm.search.pareto import Point, best_within, pareto_front
from spacy_lsbillm.search.price import BACKWARD, FORWARD, Cost, Prices
from spacy_lsbillm.search.recommend import recommendations
from spacy_lsbillm.search.run import choose_way, run_all
from spacy_lsbillm.search.strategies import Grid, Halving, best_so_far
from spacy_lsbillm.search.study import Study
from spacy_lsbillm.search.training import Training
from spacy_lsbillm.search.ways import (
    DIMENSIONS,
    Dimension,
    display_name,
    file_name,
    format_settings,
    identity_of,
    mask_of,
    settings_of,
    shared_settings,
    way_of,
)

pytestmark = pytest.mark.any_stack

MASKS = ("none", "all", "from:2", "layers:0,3", "bits:01")
QUICK = ["--training.max_steps", "8", "--training.eval_frequency", "4", "--seeds", "0"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.spacy")


@pytest.fixture(scope="module")
def config(make_base, corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "c.cfg"
    return write_config(path, corpus, make_base(), ["sequence_labeler"])


@pytest.fixture(scope="module")
def experiment(config):
    return experiment_of(config)


def experiment_of(config, **more):
    overrides = {"training.max_steps": 8, "training.eval_frequency": 4}
    overrides |= {f"components.transformer.model.{name}": value for name, value in more.items() if "." not in name}
    overrides |= {name: value for name, value in more.items() if "." in name}
    return Experiment.of(load_config(config, overrides=overrides, interpolate=False))


def search(config, output, *more, code=0, command="search"):
    return " ".join(run("lsbillm", command, config, output, *QUICK, *more, code=code).split())


# Ways


@given(st.sampled_from(MASKS), st.dictionaries(st.sampled_from([one.setting for one in DIMENSIONS]), st.integers(0, 9)))
def test_a_way_says_its_mask_and_its_settings(mask, values):
    way = way_of(mask, format_settings(values))
    assert (mask_of(way), settings_of(way)) == (mask, values)
    training = Training.of(way, 3, 8)
    assert training.way == way and training.ways == [way]
    assert Training.shared(["none", mask], 3, 8, format_settings(values)).ways == [
        way_of("none", training.settings),
        way,
    ]
    # In a search over masks only, the name is the mask, also in paths and in storage.
    assert (way == mask and file_name(way) == file_name(mask)) == (not values)
    assert all(str(value) in display_name(way) for value in values.values())
    assert "unmask_warmup" not in shared_settings(way)


def test_the_same_training_under_two_names():
    same = [
        ("all", "bits:1111"),
        ("none", "none unmask_warmup=100"),
        ("all depth=2", "from:0 depth=2"),
        ("all repeat=1 depth=2", "layers:0-1 repeat=1 depth=2"),
    ]
    assert all(identity_of(one, 4) == identity_of(other, 4) for one, other in same)
    different = ["all", "none", "all repeat=1", "all unmask_warmup=100", "all depth=2", "none repeat=1", "none depth=2"]
    assert len({identity_of(way, 4) for way in different}) == len(different)
    trainings = [
        Training("bits:11", 0, 8),
        Training.shared(["none", "all"], 0, 8),
        Training("bits:11", 0, 8, "repeat=1"),
    ]
    # The name under which it was trained, unless the storage has its own.
    assert use_stored_names(["all repeat=1", "from:2", "layers:0-3"], trainings, 4) == [
        "bits:11 repeat=1",
        "from:2",
        "bits:11",
    ]
    assert use_stored_names(["all"], trainings, 4) == ["all"]


def test_every_mask_with_every_setting_at_which_it_fits(experiment):
    ways, left_out = combine_ways(["none", "from:2", "all"], {"repeat": [0, 1], "depth": [2, 4]}, experiment)
    assert ways == [
        *("none depth=2", "all depth=2", "none", "from:2", "all"),
        *("none repeat=1 depth=2", "all repeat=1 depth=2", "none repeat=1", "from:2 repeat=1", "all repeat=1"),
    ]
    assert list(left_out) == ["from:2 depth=2", "from:2 repeat=1 depth=2"]
    assert "there is no layer 2" in left_out["from:2 depth=2"]
    ways, left_out = combine_ways(["none", "all"], {"unmask_warmup": [0, 9]}, experiment)
    assert ways == ["none", "all", "all unmask_warmup=9"]
    assert left_out == {"none unmask_warmup=9": "it is the same training as none"}
    with pytest.raises(MaskError, match="there is no layer 9"):
        combine_ways(["none", "from:9"], {"depth": [2, 4]}, experiment)
    # Settings that the config has are not named.
    ways, _ = combine_ways(["none"], {"repeat": [0, 1]}, experiment_of(config_of_experiment(experiment), repeat=1))
    assert ways == ["none repeat=0", "none"]


def config_of_experiment(experiment):
    path = experiment.base.parent / "again.cfg"
    experiment.config.to_disk(path, interpolate=False)
    return path


def test_a_way_is_what_its_training_is_configured_with(experiment):
    def model(training):
        return experiment.config_of(training)["components"]["transformer"]["model"]

    found = model(Training.of("all repeat=2 depth=2 unmask_warmup=4", 0, 8))
    assert [found[name] for name in ("unmask", "repeat", "depth", "unmask_warmup")] == ["all", 2, 2, 4]
    # In a short training the warm-up is shortened in proportion.
    assert model(Training.of("all unmask_warmup=4", 0, 4))["unmask_warmup"] == 2
    assert model(Training.of("none unmask_warmup=4", 0, 8))["unmask_warmup"] == 0


# Prices


def counted(experiment, training, tmp_path, monkeypatch):
    """The pieces times layers of a real training, in updates and in evaluations."""
    found = Counter()
    forward = billm_model.forward
    make_batch = billm_model.make_batch

    def counting(model, docs, is_train):
        layers = billm_model.backbone_shim(model).backbone.config.num_hidden_layers

        def batched(*given, **named):
            batch = make_batch(*given, **named)
            found[is_train] += layers * sum(int(part.mask.sum()) for part in batch.micro_batches)
            return batch

        with monkeypatch.context() as patch:
            patch.setattr(billm_model, "make_batch", batched)
            return forward(model, docs, is_train)

    with monkeypatch.context() as patch:
        patch.setattr(billm_model, "forward", counting)
        experiment.run(training, tmp_path / "model", -1)
    return found[True], found[False]


@pytest.mark.parametrize("way", ["none", "all repeat=2 depth=2"])
@pytest.mark.parametrize("size", [100, 100_000])
def test_a_price_is_what_a_training_takes(config, tmp_path, monkeypatch, way, size):
    experiment = experiment_of(config, **{"training.batcher.size": size})
    prices, training = Prices(experiment), Training.of(way, 0, 8)
    updates, evaluations = counted(experiment, training, tmp_path, monkeypatch)
    # The order of documents, and so the content of batches, is random, unless one batch contains all.
    accuracy = 0.1 if size == 100 else 1e-9
    taken = (FORWARD + BACKWARD) * updates + FORWARD * evaluations
    assert prices.layer_pieces(training) == pytest.approx(taken, rel=accuracy)
    causal = prices.layer_pieces(Training("none", 0, 8))
    assert prices.cost(way).training == pytest.approx(taken / causal, rel=accuracy)


def test_prices_are_relative_to_the_causal_model(experiment, config):
    prices = Prices(experiment)
    one = prices.cost("none")
    assert (one.training, one.prediction) == (1.0, 1.0)
    assert prices.cost("all") == one
    half, double = prices.cost("all depth=2"), prices.cost("none repeat=1")
    assert (half.training, half.prediction) == pytest.approx((0.5, 0.5))
    # All copies share one start piece.
    assert 1.8 < double.prediction < 2 and 1.8 < double.training < 2
    assert prices.training_price(Training("none", 0, 4)) == pytest.approx(prices.training_price(Training("none", 1, 4)))
    assert prices.training_price(Training("none", 0, 4)) < 1
    # Five masks share one training, but each has its own evaluation.
    shared = prices.training_price(Training.shared(MASKS, 0, 8))
    evaluations = [prices.training_price(Training.shared(MASKS[:n], 0, 8)) for n in (3, 4)]
    assert shared > 1 and shared - evaluations[1] == pytest.approx(evaluations[1] - evaluations[0])
    # The unit is the same if the config itself has repeat.
    assert Prices(experiment_of(config, repeat=1)).cost("none").prediction == pytest.approx(double.prediction)
    frozen, tuned = (
        Prices(one).layer_pieces(Training("none", 0, 8)) for one in (experiment_of(config, lora=None), experiment)
    )
    assert frozen < tuned / 2


# Budgets


WAYS = ["none", "all", "none repeat=1", "all depth=2"]
PRICE = {"none": 1.0, "all": 1.0, "none repeat=1": 2.0, "all depth=2": 0.5}


def price(training):
    return sum(PRICE[way] for way in training.ways) / len(training.ways)


def train(done):
    return lambda training: (done.append(training), (price(training), {"seconds": 1.0, "curve": [], "by_mask": {}}))[1]


@settings(max_examples=8)
@given(total=st.floats(0.5, 14), first=st.integers(0, 14))
def test_a_budget_is_kept(tmp_path_factory, total, first):
    """Also by a search that was stopped and continues: what is in the storage was spent."""
    url = f"sqlite:///{tmp_path_factory.mktemp('budget') / 'search.db'}"
    plan, budget, done = Grid(WAYS, (0, 1, 2), 8), Budget(total, price), []
    budget.check(plan)

    def stops(training):
        if len(done) == first:
            raise KeyboardInterrupt
        return train(done)(training)

    try:
        run_all(plan, Study(url, {}), stops, "trainings", budget)
    except KeyboardInterrupt:
        run_all(plan, Study(url, {}), train(done), "trainings", budget)
    spent = sum(map(price, done))
    assert spent <= total * (1 + 1e-6)
    missing = set(plan.stage({})) - set(done)
    # No remaining training would have fitted.
    assert all(spent + price(training) > total for training in missing)
    assert len(set(done)) == len(done)


def test_a_budget_counts_what_is_under_way_elsewhere(tmp_path):
    url = f"sqlite:///{tmp_path / 'search.db'}"
    budget, trainings, inner = Budget(2.0, price), [Training.of(way, 0, 8) for way in WAYS], []

    def busy(training):
        # Another process, while this training is running.
        while Study(url, {}).run_next(trainings, train(inner), budget.fits) is not None:
            pass
        return train([])(training)

    assert Study(url, {}).run_next(trainings, busy, budget.fits) == Training("none", 0, 8)
    assert inner == [Training("all", 0, 8)]


def test_a_budget_that_ends_a_strategy_leaves_the_best_so_far():
    results = {Training.of(way, 0, 8): {way: score} for way, score in zip(WAYS, (0.5, 0.6, 0.7, 0.4), strict=True)}
    results[Training("all", 1, 8)] = {"all": 0.9}
    # Compared by the seeds that all have.
    assert best_so_far(WAYS, 8, (0, 1), results) == "none repeat=1"
    assert choose_way(Grid(WAYS, (0, 1), 8), results, WAYS, (0, 1), 8, Budget(5.0, price)) == "none repeat=1"
    with pytest.raises(SettingError, match=r"--budget 5 is used up: .* no way was trained in full"):
        choose_way(Grid(["from:1"], (0,), 8), results, ["from:1"], (0,), 8, Budget(5.0, price))


def test_a_strategy_says_what_it_needs_at_least():
    assert Grid(WAYS, (0, 1), 8).minimum_price(price) == 0.5
    halving = Halving(WAYS, (0, 1), 8)
    # Shared trainings for each setting, and one of the most expensive way.
    assert halving.minimum_price(price) == sum(map(price, halving.stage({}))) + 2.0
    with pytest.raises(
        SettingError, match=r"--budget 0\.4 is too small: .* at least 0\.5 trainings of the causal model"
    ):
        Budget(0.4, price).check(Grid(WAYS, (0,), 8))
    for wrong in (float("nan"), -1.0, 0.0):
        with pytest.raises(SettingError, match="is too small"):
            Budget(wrong, price).check(Grid(WAYS, (0,), 8))


def test_halving_over_settings_keeps_the_best_at_each_cost():
    ways = [way_of(mask, one) for one in ("", "repeat=1", "depth=2") for mask in ("none", "from:1", "layers:0", "all")]
    costs = {way: {"": 1.0, "repeat=1": 2.0, "depth=2": 0.5}[way.partition(" ")[2]] for way in ways}
    # The more expensive, the better.
    true = {way: costs[way] + 0.01 * (12 - ways.index(way)) for way in ways}
    strategy, results = Halving(ways, (0, 1, 2), 8, costs), {}
    while stage := strategy.stage(results):
        results |= {training: {way: true[way] for way in training.ways} for training in stage}
    assert Counter(len(training.masks) for training in results if len(training.masks) > 1) == {4: 3 * 3}
    own = {training.way for training in results if len(training.masks) == 1 and training.seed == 2}
    assert {"none repeat=1", "none"} <= own
    assert strategy.best(results) == "none repeat=1"
    assert len(results) <= strategy.n_trainings
    # Ways that differ only in the warm-up share trainings.
    warm = Halving(["none", "all", "all unmask_warmup=9"], (0,), 8)
    assert warm.stage({}) == [Training("none all", 0, 8)]


# The choice


points = st.lists(
    st.builds(Point, st.uuids().map(str), st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0]), st.integers(0, 5).map(float)),
    min_size=1,
    max_size=12,
)


@given(points)
def test_the_front_is_what_no_other_beats(found):
    def beaten(one):
        return any(
            other.cost <= one.cost and other.score >= one.score and (other.cost, other.score) != (one.cost, one.score)
            for other in found
        )

    assert {one.way for one in pareto_front(found)} == {one.way for one in found if not beaten(one)}
    costs = [one.cost for one in pareto_front(found)]
    assert costs == sorted(costs)


@given(points, st.floats(0.1, 4))
def test_the_best_within_a_limit(found, limit):
    best = best_within(found, limit)
    within = [one for one in found if one.cost <= limit]
    assert (best is None) == (not within)
    if best is not None:
        assert best.score == max(one.score for one in within)
        assert best.cost == min(one.cost for one in within if one.score == best.score)


def test_what_to_take():
    costs = {"none": 1.0, "all": 1.0, "all repeat=1": 1.98, "all depth=2": 0.5, "all repeat=1 depth=2": 0.99}
    scores = {"none": 70, "all": 75, "all repeat=1": 80, "all depth=2": 60, "all repeat=1 depth=2": 77}

    def found(chosen, ways):
        rows = [Row(way, 8, [scores[way]], 1.0, []) for way in ways]
        spending = Spending({way: Cost(1.0, costs[way]) for way in ways}, 1.0)
        outcome = Outcome(chosen, rows, [], 8, 8, [], {}, None, spending)
        return [one.point and one.point.way for one in recommendations(outcome)]

    assert found("all repeat=1", costs) == ["all repeat=1", "all repeat=1 depth=2", "all repeat=1 depth=2"]
    assert found("all", ["none", "all", "all depth=2"]) == ["all", "all depth=2", "all"]
    assert found("all", ["none", "all"]) == ["all", None, "all"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_names_stand_apart(wanted):
    gap = 1 / 30
    places = spread(sorted(wanted), gap)
    assert all(later - one >= gap - 1e-9 for one, later in pairwise(places))
    assert places[0] >= -1e-9 and places[-1] <= 1 + 1e-9


# The command


@pytest.fixture(scope="module")
def searched(config, tmp_path_factory):
    """The output folder of a search over masks, copies and depths."""
    folder = tmp_path_factory.mktemp("searched") / "out"
    search(config, folder, "--masks", "none all", "--repeat", "0,1", "--depth", "2,all")
    return folder


def test_from_a_config_to_the_best_way(searched):
    folder = searched
    results = json.loads((folder / "results.json").read_text())
    ways = {
        way_of(mask, one) for mask, one in product(("none", "all"), ("", "repeat=1", "depth=2", "repeat=1 depth=2"))
    }
    assert {row["way"] for row in results["rows"]} == ways
    assert results["chosen"] == max(results["rows"], key=lambda row: row["mean"])["way"]
    page, table = (folder / "report.html").read_text(), (folder / "table.md").read_text()
    for way in ways:
        assert f"<td>{display_name(way)}" in page
        assert f"| {display_name(way)} " in table or f"| {display_name(way)} (chosen) " in table
    # Plots of scores and costs, of the masks, and of the curves.
    assert page.count("<svg") == page.count("</svg>") == 3
    for purpose in ("best score", "half the cost of that", "cost of the causal model"):
        assert f"{purpose}: " in table and f"{purpose}: " in page
    best = load_config(folder / "best.cfg")["components"]["transformer"]["model"]
    chosen = results["chosen"]
    depth = best["depth"] or 4
    assert (best["unmask"], best["repeat"]) == (mask_of(chosen), settings_of(chosen).get("repeat", 0))
    assert depth == settings_of(chosen).get("depth", 4)
    spent = sum(row["cost"]["training"] for row in results["rows"])
    assert results["spending"]["spent"] == pytest.approx(spent)


@pytest.mark.slow
def test_a_search_goes_on_over_more_ways(config, tmp_path, monkeypatch):
    """Under the old name, from a storage without settings beside the mask, and with other names of masks."""
    folder = tmp_path / "out"
    search(config, folder, "--masks", "bits:00 bits:11", command="search-mask")
    with sqlite3.connect(folder / "search.db") as database:
        (stored,) = database.execute("select count(*) from trial_user_attributes where key = 'cell'").fetchone()
        database.execute("""
            update trial_user_attributes set value_json = replace(value_json, ', \\"settings\\": \\"\\"', '')
            where key = 'cell'
        """)
        left = database.execute("select value_json from trial_user_attributes where key = 'cell'").fetchall()
    assert stored == 2 and not any("settings" in text for (text,) in left)
    trained = []
    kept = Experiment.run

    def counting(self, training, *more):
        trained.append(training.way)
        return kept(self, training, *more)

    monkeypatch.setattr(Experiment, "run", counting)
    search(config, folder, "--masks", "none all", "--depth", "4,2")
    assert trained == ["none depth=2", "all depth=2"]
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert {row["way"] for row in rows} == {"bits:00", "bits:11", "none depth=2", "all depth=2"}
    # Both names of the command mean the same.
    tables = []
    for command in ("search", "search-mask"):
        search(config, folder, "--masks", "bits:00 bits:11", command=command)
        tables.append((folder / "table.md").read_text())
    assert tables[0] == tables[1]
    assert len(trained) == 2


@pytest.mark.slow
def test_a_budget_ends_a_search(config, corpus, tmp_path, monkeypatch):
    folder, given = tmp_path / "out", ("--masks", "none all", "--repeat", "0,1")
    search(config, folder, *given, "--budget", "1.5", "--test", corpus)
    results = json.loads((folder / "results.json").read_text())
    # The second would fit into the whole budget but not into the rest; one that costs twice as much fits neither.
    assert [row["way"] for row in results["rows"]] == ["none"]
    assert results["spending"]["spent"] == pytest.approx(1.0) and not results["spending"]["complete"]
    # There is nothing to compare it with either.
    assert [one["way"] for one in results["test"]] == ["none"]
    assert "the budget was 1.5; it ended the search" in (folder / "table.md").read_text()
    # A larger budget continues from there.
    search(config, folder, *given, "--budget", "2.5")
    results = json.loads((folder / "results.json").read_text())
    assert [row["way"] for row in results["rows"]] == ["none", "all"]
    assert results["spending"]["spent"] == pytest.approx(2.0)
    monkeypatch.setattr("spacy_lsbillm.search.experiment.run_training", None)
    search(config, folder, *given, "--budget", "2.5")


def test_the_best_config_can_be_trained_where_nothing_is_unmasked(config, tmp_path):
    """The config's warm-up is meant for other masks."""
    search(config, tmp_path / "out", "--masks", "none", "--components.transformer.model.unmask_warmup", "9")
    model = load_config(tmp_path / "out" / "best.cfg")["components"]["transformer"]["model"]
    assert model["unmask"] == "none"
    registry.resolve({"model": model})


def test_bad_input_is_refused_before_any_work(config, tmp_path, monkeypatch):
    for more, message in (
        (("--repeat", "0,-1"), "--repeat '0,-1': give each value once, none below 0"),
        (("--repeat", "1,1"), "give each value once"),
        (("--repeat", "one"), "--repeat 'one': give whole numbers"),
        (("--repeat", "5000"), "repeat = 5000 is not allowed"),
        (("--depth", "0"), "none below 1"),
        (("--depth", "9"), "--depth '9': the base has 4 layers. Use 1 to 4"),
        (("--depth", "half"), 'whole numbers with commas between them, or "all"'),
        (("--unmask-warmup", "-5"), "none below 0"),
        (("--masks", "none from:9", "--depth", "2,4"), "there is no layer 9"),
        (("--repeat", "0,1", "--strategy", "greedy"), "greedy varies only masks. Leave out --repeat"),
        (("--masks", "none", "--budget", "0.5"), "--budget 0.5 is too small"),
        (("--budget", "2", "--groups", "2"), "--budget 2 is too small"),
    ):
        output = search(config, tmp_path / "out", *more, code=1)
        assert message in output, output
    assert not (tmp_path / "out").exists()


def test_a_setting_that_the_architecture_does_not_know_is_refused(experiment):
    assert "unmask_warmup" in {one.setting for one in DIMENSIONS}
    with pytest.raises(SettingError, match=r"--half-mask '0,1': the architecture .* has no setting 'half_mask'"):
        parse_values(Dimension("half_mask", "half"), "0,1", experiment)
    assert registry.has("architectures", experiment.model["@architectures"])
