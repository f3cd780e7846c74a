"""Rankings of masks without a search: masks that change at run time, predictors, their agreement with a grid."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from corpora import run, write_config, write_corpus
from heads import corpus as labelled
from heads import fit as fit_labeler
from heads import labeler
from hypothesis import given
from hypothesis import strategies as st
from pipelines import build, same, trained, vectors
from spacy.tokens import Span
from spacy.util import load_config, load_model

from benchmarks.masks.agreement import agreement
from spacy_lsbillm.errors import MaskError, SettingError
from spacy_lsbillm.files import read_or_make
from spacy_lsbillm.pipeline.billm_transformer import BiLLMTransformer
from spacy_lsbillm.search.experiment import Experiment
from spacy_lsbillm.search.masks import all_masks
from spacy_lsbillm.search.prediction import Prediction
from spacy_lsbillm.search.probe import fit_regression, probe
from spacy_lsbillm.training.random_masks import create_random_masks_v1

pytestmark = pytest.mark.any_stack

# Masks at run time


def test_a_pipeline_computes_under_another_mask_for_a_while(make_base, tmp_path):
    nlp = trained(make_base(), heads=(), unmask="none")
    transformer, before = nlp.get_pipe("transformer"), vectors(nlp)
    transformer.use_mask("bits:01")
    assert not same(vectors(nlp), before)
    # The saved pipeline has the mask of the config.
    nlp.to_disk(tmp_path)
    assert json.loads((tmp_path / "transformer" / "billm.json").read_text())["mask"]["unmask"] == "none"
    assert same(vectors(load_model(tmp_path)), before)
    transformer.use_mask(None)
    assert same(vectors(nlp), before)
    with pytest.raises(MaskError, match="3 bits do not divide 4 layers"):
        transformer.use_mask("bits:010")


def test_training_under_random_masks_sees_each_equally_often(make_base, monkeypatch):
    nlp = build(make_base(), heads=())
    nlp.initialize()
    used = []
    monkeypatch.setattr(BiLLMTransformer, "use_mask", lambda self, mask: used.append(mask))
    callback = create_random_masks_v1(all_masks(2), seed=3)
    for step in range(40):
        callback(nlp, {"step": step, "epoch": 0})
    assert Counter(used) == dict.fromkeys(all_masks(2), 10)
    assert len({tuple(used[i : i + 4]) for i in range(0, 40, 4)}) > 1
    # A training that continues from a step has the same mask there.
    callback(nlp, {"step": 17, "epoch": 0})
    assert used[-1] == used[17]
    with pytest.raises(SettingError, match="names none"):
        create_random_masks_v1([])
    with pytest.raises(MaskError, match="a mask of random_masks = 'some'"):
        create_random_masks_v1(["some"])
    with pytest.raises(
        SettingError, match="'encoder' is not a billm_transformer of this pipeline, which has: transformer"
    ):
        create_random_masks_v1(["all"], component="encoder")(nlp, {"step": 0, "epoch": 0})


def test_gradients_belong_to_the_mask_of_their_forward_pass(make_base):
    """The mask must not change between the forward and the backward pass.

    With gradient checkpointing, the backward pass repeats the forward pass, and a listener may delay it until the next
    update.
    """
    found = []
    for switch in (False, True):
        torch.manual_seed(0)
        nlp = build(make_base(), heads=(), unmask="all", gradient_checkpointing=True, lora={"dropout": 0.0})
        labeler(nlp)
        labeler(nlp, name="silent", spans_key="slots")
        data = labelled(nlp)
        for example in data:
            example.reference.spans["slots"] = [Span(example.reference, 0, 1, label="x")]
        fit_labeler(nlp, data, steps=1)
        nlp.update(data, sgd=False, exclude=["silent"])
        if switch:
            nlp.get_pipe("transformer").use_mask("none")
        else:
            nlp.get_pipe("transformer").settle()
        parameters = nlp.get_pipe("transformer").model.shims[0].backbone.trainable()
        found.append([value.grad.clone() for value in parameters.values()])
    assert any(value.abs().max() > 0 for value in found[0])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


# Agreement


def prediction(scores, steps=10):
    return Prediction("p", scores, steps, 1.0)


@given(st.permutations(range(16)))
def test_agreement_with_a_grid(order):
    masks = all_masks(4)
    grid = dict(zip(masks, [0.01 * place for place in order], strict=True))
    right = agreement(prediction(grid), grid, 100)
    assert (right.spearman, right.kendall) == (pytest.approx(1.0), pytest.approx(1.0))
    assert (right.regret_first, right.regret_best_of_three, right.share) == (0.0, 0.0, 0.1)
    wrong = agreement(prediction({mask: -score for mask, score in grid.items()}), grid, 100)
    assert (wrong.spearman, wrong.kendall) == (pytest.approx(-1.0), pytest.approx(-1.0))
    assert wrong.regret_first == pytest.approx(0.15)
    assert wrong.regret_best_of_three == pytest.approx(0.13)


def test_agreement_where_there_is_nothing_to_rank():
    grid = {"none": 0.1, "all": 0.3}
    flat = agreement(prediction({"none": 0.0, "all": 0.0}), grid, 100)
    # Among equal masks it chooses the first.
    assert (flat.spearman, flat.kendall, flat.regret_first) == (None, None, pytest.approx(0.2))
    # The loss of a training that has diverged.
    astray = prediction({"layers:1": float("nan"), "none": 0.2, "all": 0.3})
    assert astray.ranking == ["all", "none", "layers:1"]
    assert agreement(astray, {"layers:1": 0.1, "none": 0.2, "all": 0.3}, 100).spearman == pytest.approx(1.0)
    with pytest.raises(SettingError, match="only one has 'all'"):
        agreement(prediction({"none": 0.0, "layers:1": 1.0}), grid, 100)


def test_what_is_kept_is_not_made_again(tmp_path):
    made = []

    def make(number):
        return lambda: made.append(number) or {"n": number}

    paths = {tmp_path / "a" / f"{number}.json": make(number) for number in range(3)}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.json").write_text('{"n": 9}')
    assert [one["n"] for one in read_or_make(paths)] == [0, 9, 2]
    assert [one["n"] for one in read_or_make(paths)] == [0, 9, 2]
    assert made == [0, 2]


# The probe


def test_the_linear_model_finds_what_is_linear():
    rng = np.random.default_rng(0)
    vectors = torch.from_numpy(rng.normal(3, 2, (300, 5)).astype("f"))
    classes = (vectors @ torch.randn(5, 3, generator=torch.Generator().manual_seed(0))).argmax(1)
    read = fit_regression(vectors[:200], classes[:200], 3)
    assert (read(vectors[200:]).argmax(1) == classes[200:]).float().mean() > 0.9
    several = torch.stack([vectors[:, 0] > 3, vectors[:, 1] > 3], 1).float()
    assert (
        (fit_regression(vectors[:200], several[:200], 2)(vectors[200:]) > 0) == several[200:].bool()
    ).float().mean() > 0.9
    assert torch.equal(read(vectors), fit_regression(vectors[:200], classes[:200], 3)(vectors))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.spacy")


@pytest.mark.parametrize("heads", [["sequence_labeler"], ["ner"], ["spancat"], ["textcat"], ["textcat_multilabel"]])
def test_the_probe_reads_what_the_score_counts(make_base, corpus, tmp_path, heads):
    """Four sentences, the same in train and dev: a linear model memorises them under every mask."""
    experiment = Experiment.of(
        load_config(write_config(tmp_path / "c.cfg", corpus, make_base(), heads), interpolate=False)
    )
    found = probe(experiment, ["none", "from:2"], tmp_path)
    assert found.scores == {"none": pytest.approx(1.0), "from:2": pytest.approx(1.0)}
    assert found.steps == 0
    stored = (tmp_path / "predictions" / "probe" / "from-2.json").read_text()
    assert probe(experiment, ["none", "from:2"], tmp_path) == found
    assert (tmp_path / "predictions" / "probe" / "from-2.json").read_text() == stored


# The command

QUICK = ["--training.max_steps", "8", "--training.eval_frequency", "8", "--groups", "2", "--seeds", "0"]


@pytest.fixture
def config(make_base, corpus, tmp_path):
    return write_config(tmp_path / "c.cfg", corpus, make_base(), ["sequence_labeler"])


def predict(config, output, *more, code=0):
    return " ".join(run("lsbillm", "predict-mask", config, output, *QUICK, *more, code=code).split())


@pytest.mark.slow
@pytest.mark.parametrize(("predictor", "steps"), [("probe", 0), ("one-shot", 8), ("first-steps", 8), ("first-loss", 8)])
def test_a_ranking_by_each_predictor(config, tmp_path, predictor, steps):
    output = predict(config, tmp_path / "out", "--predictor", predictor, "--share", "0.25")
    found = json.loads((tmp_path / "out" / "ranking.json").read_text())
    scores = [one["score"] for one in found["ranking"]]
    assert scores == sorted(scores, reverse=True)
    assert {one["mask"] for one in found["ranking"]} == set(all_masks(2))
    assert (found["predictor"], found["steps"], found["grid_steps"]) == (predictor, steps, 32)
    first = found["ranking"][0]
    assert f"| 1 | {first['mask']} | {first['layers']} |" in output
    assert f'unmask = "{first["mask"]}"' in (tmp_path / "out" / "predicted.cfg").read_text()
    # Nothing is computed again.
    ranking = (tmp_path / "out" / "ranking.md").read_text()
    predict(config, tmp_path / "out", "--predictor", predictor, "--share", "0.25")
    assert (tmp_path / "out" / "ranking.md").read_text() == ranking


@pytest.mark.slow
def test_then_the_first_are_trained(config, corpus, tmp_path):
    output = predict(config, tmp_path / "out", "--predictor", "probe", "--then", "2", "--test", corpus)
    ranking = [one["mask"] for one in json.loads((tmp_path / "out" / "ranking.json").read_text())["ranking"]]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    full = {row["mask"] for row in results["rows"] if row["steps"] == 8}
    assert set(ranking[:2]) <= full
    assert results["chosen"] in ranking[:2]
    # The price is that of two out of four masks.
    assert (results["steps"], results["grid_steps"]) == (16, 32)
    assert "50% of the full grid's" in output


def test_bad_input_is_refused_before_any_training(config, corpus, tmp_path):
    write_config(tmp_path / "tagger.cfg", corpus, "assets/base", ["tagger"])
    for given_config, more, message in (
        (config, ("--predictor", "oracle"), "Invalid value for '--predictor'"),
        (config, ("--then", "5"), "--then 5 is not allowed: there are 4 masks. Use 0 to 4."),
        (config, ("--test", corpus), "--test needs trained models"),
        (config, ("--predictor", "first-steps", "--share", "1.5"), "must be above 0 and below 1"),
        (config, ("--predictor", "first-loss", "--share", "0.1"), "--share 0.1 of 8 steps is less than one step"),
        (config, ("--masks", "from:9"), "there is no layer 9"),
        (
            tmp_path / "tagger.cfg",
            ("--predictor", "probe"),
            "the probe handles only labelled spans and classes of documents",
        ),
        (
            config,
            ("--training.before_update", '{"@callbacks": "spacy-lsbillm.random_masks.v1", "masks": ["all"]}'),
            "changes the mask by training.before_update",
        ),
    ):
        output = predict(given_config, tmp_path / "out", *more, code=2 if "oracle" in more else 1)
        assert message in output.replace("│ ", ""), output
    assert not (tmp_path / "out").exists()
