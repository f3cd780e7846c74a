"""`calibrate`: probabilities, thresholds and guarantees, on made-up evidence and in a small pipeline."""

import json
import re
import warnings
from dataclasses import replace
from itertools import product
from math import comb

import numpy as np
import pytest
import spacy
from pipelines import CNN, examples
from spacy.tokens import DocBin, Span
from spacy.training import Corpus, Example
from spacy.util import fix_random_seed
from thinc.api import Adam
from tiny import TEXTS
from typer.testing import CliRunner

from spacy_lsbillm.calibration import (
    CalibrationSettings,
    Evidence,
    calibrate,
    fit_curve,
    guarantee,
    recalls,
    thresholds,
)
from spacy_lsbillm.calibration.guarantees import holds, needed
from spacy_lsbillm.cli import app
from spacy_lsbillm.errors import DataError, SettingError
from spacy_lsbillm.saving import save
from spacy_lsbillm.tagging import calibration_error

pytestmark = pytest.mark.any_stack

LABELS = ("city", "date")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def made_up(rng, documents, shift=(0.0, 0.0), missed=0.02):
    """Four candidates per document, which are right as often as a curve of their scores says."""
    score = rng.beta(0.6, 0.6, 4 * documents).clip(2e-4, 1 - 1e-6)
    label = rng.integers(0, 2, len(score))
    truth = sigmoid(0.5 * np.log(score / (1 - score)) + np.array(shift)[label])
    right = rng.random(len(score)) < truth
    document = np.repeat(np.arange(documents), 4)
    gold = np.zeros((documents, 2), dtype=np.int64)
    np.add.at(gold, (document[right], label[right]), 1)
    gold += rng.random(gold.shape) < missed
    return Evidence(LABELS, gold, 0, document, label, score, right, score > 0.4)


def drawn(evidence, documents):
    """The evidence of some documents."""
    number = np.full(len(evidence.gold), -1)
    number[documents] = np.arange(len(documents))
    part = evidence.where(number[evidence.document] >= 0)
    return Evidence(
        part.labels,
        part.gold[documents],
        0,
        number[part.document],
        part.label,
        part.score,
        part.right,
        part.best,
    )


@pytest.mark.parametrize(("shift", "per_label"), [((-0.7, -0.7), False), ((1.5, -1.5), True)])
def test_curves_make_probabilities_of_scores(shift, per_label):
    rng = np.random.default_rng(0)
    written = made_up(rng, 2000, shift).written
    found = fit_curve(written)
    assert found.per_label == per_label and found.kind in ("Platt", "beta")
    assert found.losses[f"{found.kind} by label" if per_label else found.kind] == min(found.losses.values())
    assert calibration_error(written.score, written.right) > 0.1
    assert calibration_error(found.held_out, written.right) < 0.03
    assert found.curve(np.array([0.5]))[0] == pytest.approx(sigmoid(np.mean(shift)), abs=0.05)


def test_scores_that_are_right_or_few_stay_nearly_as_they_are():
    scores = np.linspace(0.01, 0.99, 400)
    right = np.random.default_rng(0).random(400) < scores
    nothing = np.zeros(400, dtype=np.int64)
    for n in (400, 4):
        part = np.linspace(0, 399, n).astype(int)
        written = Evidence(
            LABELS, np.ones((1, 2), int), 0, nothing[part], nothing[part], scores[part], right[part], right[part]
        )
        assert fit_curve(written).curve(scores) == pytest.approx(scores, abs=0.12)


@pytest.mark.parametrize(("delta", "least", "most"), [(None, 0.9, 0.93), (0.1, 0.9, 0.97)])
def test_the_recall_is_kept_in_new_documents(delta, least, most):
    rng = np.random.default_rng(1)
    pool = made_up(rng, 3000)
    found = []
    for _ in range(120):
        order = rng.permutation(len(pool.gold))
        given = guarantee(drawn(pool, order[:200]), 0.9, delta)
        found.append(recalls(drawn(pool, order[200:]), given.threshold).mean())
    assert least - 0.003 <= np.mean(found) <= most
    if delta is not None:
        assert np.mean(np.array(found) >= 0.9) >= 0.9


def test_a_recall_can_be_kept_for_each_label():
    pool = made_up(np.random.default_rng(2), 2000, (1.5, -1.5))
    given = guarantee(pool, 0.8, None, per_label=True)
    for i, label in enumerate(LABELS):
        hits = pool.right & (pool.label == i) & (pool.score >= given.threshold[label])
        gold = pool.gold[:, i]
        mean = (np.bincount(pool.document[hits], minlength=len(gold)) / np.maximum(gold, 1))[gold > 0].mean()
        assert 0.8 <= mean == pytest.approx(given.found[label]) and mean < 0.802
        assert given.documents[label] == (gold > 0).sum()


@pytest.mark.parametrize(("risk", "recall", "delta"), product((0.0, 0.03), (0.9, 0.95), (None, 0.1, 0.01)))
def test_as_many_documents_as_needed_are_enough_and_one_less_is_not(risk, recall, delta):
    number = needed(risk, recall, delta)
    assert holds(risk, number, recall, delta) and not holds(risk, number - 1, recall, delta)
    assert needed(1 - recall, recall, delta) is None


def test_the_numbers_needed_are_those_of_the_papers():
    # 1 / (n + 1) <= 0.1; 0.9 ** n <= 0.1.
    assert needed(0.0, 0.9, None) == 9 and needed(0.0, 0.9, 0.1) == 22
    # A case in which Bentkus' bound is smaller: e times the probability of at most 30 misses in 500.
    tail = np.e * sum(comb(500, k) * 0.1**k * 0.9 ** (500 - k) for k in range(31))
    assert holds(0.06, 500, 0.9, tail * 1.0001) and not holds(0.06, 500, 0.9, tail * 0.9)


def test_too_few_documents_are_refused_with_the_number_it_takes():
    pool = made_up(np.random.default_rng(0), 8, missed=0)
    n = int((pool.gold.sum(axis=1) > 0).sum())
    with pytest.raises(
        DataError, match=rf"recall of 0\.9 with confidence 0\.9 .* by {n} documents .* takes 22 or more"
    ):
        guarantee(pool, 0.9, 0.1)
    pool = made_up(np.random.default_rng(0), 500, missed=0.5)
    with pytest.raises(
        DataError, match=r"recall is 0\.\d+ in \d+ documents\. Ask for 0\.\d+ or less, or train"
    ) as error:
        guarantee(pool, 0.95)
    # As much as the message offers is possible, and more is not.
    offered = float(re.search(r"Ask for ([\d.]+)", str(error.value))[1])
    assert guarantee(pool, offered).recall == offered
    with pytest.raises(DataError):
        guarantee(pool, offered + 0.01)
    with pytest.raises(DataError, match="of 'city'"):
        guarantee(made_up(np.random.default_rng(0), 9), 0.9, per_label=True)


def test_thresholds_are_the_lowest_with_a_precision_and_the_highest_with_a_recall():
    for wanted in ({"precision": 0.8}, {"recall": 0.6}, {"precision": 0.999}, {"recall": 0.999}):
        shift = -2.0 if wanted == {"precision": 0.999} else 0.0
        written = made_up(np.random.default_rng(3), 300, (shift, shift)).written
        p = written.score
        found = thresholds(written, p, **wanted)
        for i, label in enumerate(LABELS):
            own, one = written.label == i, found[label]
            gold = written.gold[:, i].sum()

            def figures(value, own=own, gold=gold, written=written):
                kept = own & (written.score >= value)
                return written.right[kept].mean(), written.right[kept].sum() / gold

            assert (one.precision, one.recall) == pytest.approx(figures(one.value)) and one.own
            values = np.sort(p[own])[:-1]
            if wanted == {"precision": 0.8}:
                lower = values[values < one.value]
                assert one.reached and all(figures(value)[0] < 0.8 for value in lower)
            elif wanted == {"recall": 0.6}:
                higher = values[values > one.value + 1e-4]
                assert one.reached and all(figures(value)[1] < 0.6 for value in higher)
            else:
                assert not one.reached
    # A label with too few spans has the threshold of all labels together.
    few = made_up(np.random.default_rng(3), 8).written
    found = thresholds(few, few.score, recall=0.5)
    assert found["city"].value == found["date"].value and not found["city"].own


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"precision": 1.5}, r"precision = 1\.5 is not allowed\. Use a number above 0 and below 1"),
        ({"precision": 0.9, "recall": 0.9}, "Give one of them"),
        ({"delta": 0.1}, "give the recall as well"),
        ({"guarantee": 0.9, "key": ""}, "Name the group"),
    ],
)
def test_bad_settings(given, message):
    with pytest.raises(SettingError, match=message):
        CalibrationSettings(**given)


@pytest.fixture(scope="module")
def trained():
    fix_random_seed(0)
    nlp = spacy.blank("xx")
    model = {"@architectures": "spacy-lsbillm.SequenceLabeler.v1", "tok2vec": CNN}
    nlp.add_pipe("sequence_labeler", config={"model": model})
    data = examples(nlp)
    nlp.initialize(lambda: data)
    optimizer = Adam(0.01)
    for _ in range(25):
        nlp.update(data, sgd=optimizer)
    return nlp


@pytest.fixture(scope="module")
def dev(trained, tmp_path_factory):
    """Each text 20 times; in a third of them its entity is not annotated."""
    docs = [example.reference for example in examples(trained)]
    made = []
    for i in range(20 * len(docs)):
        doc = docs[i % len(docs)].copy()
        if i % 3 == 0:
            doc.set_ents([])
        made.append(doc)
    path = tmp_path_factory.mktemp("dev") / "dev.spacy"
    DocBin(docs=made).to_disk(path)
    return path


@pytest.fixture(scope="module")
def stored(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "pipeline"
    trained.to_disk(path)
    return path


def command(*arguments):
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


def spans_of(docs, key=None):
    return [
        [(span.text, span.label_) for span in (doc.ents if key is None else doc.spans.get(key, []))] for doc in docs
    ]


def test_a_calibrated_pipeline(stored, dev, tmp_path):
    plain = spacy.load(stored)
    before = list(plain.pipe(TEXTS))
    assert any(spans_of(before))
    done = command(stored, dev, "--output", tmp_path / "out", "--guarantee", "0.9", "--delta", "0.1")
    assert done.exit_code == 0, done.output
    assert "Guaranteed with confidence 0.9" in done.output and "does not cover other" in done.output
    page = (tmp_path / "out" / "calibration.html").read_text(encoding="utf8")
    assert page.count("<svg") == 2 and "does not cover other data" in page and "http://" not in page.split("<svg")[0]
    nlp = spacy.load(tmp_path / "out")
    after = list(nlp.pipe(TEXTS))
    assert spans_of(after) == spans_of(before)
    scores = [doc._.ent_scores for doc in after]
    assert scores != [doc._.ent_scores for doc in before]
    for doc in after:
        group = doc.spans["candidates"]
        of_candidates = dict(zip([(s.start, s.end, s.label) for s in group], group.attrs["scores"], strict=True))
        for ent in doc.ents:
            assert of_candidates[ent.start, ent.end, ent.label] == pytest.approx(ent._.ent_score)
    found = json.loads((tmp_path / "out" / "meta.json").read_text(encoding="utf8"))["calibration"]["sequence_labeler"]
    assert found["documents"] == 80 and found["guarantee"]["recall"] == 0.9 and found["ece_after"] < found["ece_before"]
    data = list(Corpus(dev)(nlp))
    assert nlp.evaluate(data)["ents_ece"] < plain.evaluate(list(Corpus(dev)(plain)))["ents_ece"]
    # The recall that candidates promise holds on the documents that it was computed from.
    kept, gold = 0, 0
    for example, doc in zip(data, nlp.pipe(example.text for example in data), strict=True):
        pairs = {(s.start_char, s.end_char, s.label_) for s in doc.spans["candidates"]}
        wanted = {(s.start_char, s.end_char, s.label_) for s in example.reference.ents}
        kept, gold = kept + len(wanted & pairs), gold + len(wanted)
    assert kept / gold >= 0.9
    # Saved again, read from bytes, switched off.
    nlp.to_disk(tmp_path / "again")
    again = spacy.load(tmp_path / "again")
    assert [doc._.ent_scores for doc in again.pipe(TEXTS)] == scores and again.meta["calibration"]
    assert [doc._.ent_scores for doc in spacy.load(stored).from_bytes(nlp.to_bytes()).pipe(TEXTS)] == scores
    off = spacy.load(tmp_path / "out", config={"components": {"sequence_labeler": {"calibrated": False}}})
    switched = list(off.pipe(TEXTS))
    assert [doc._.ent_scores for doc in switched] == [doc._.ent_scores for doc in before]
    assert not any("candidates" in doc.spans for doc in switched)


def test_thresholds_leave_out_spans_and_do_not_keep_a_new_calibration_from_the_raw_scores(stored, dev):
    nlp = spacy.load(stored)
    first = calibrate(nlp, Corpus(dev)(nlp), CalibrationSettings(recall=0.3))["sequence_labeler"]
    pipe = nlp.get_pipe("sequence_labeler")
    assert pipe.calibration.threshold and set(pipe.calibration.threshold) == set(pipe.labels)
    docs = list(nlp.pipe(TEXTS))
    assert all(s >= min(pipe.calibration.threshold.values()) for doc in docs for s in doc._.ent_scores)
    assert "calibration" in nlp.meta and "threshold" in nlp.meta["calibration"]["sequence_labeler"]
    second = calibrate(nlp, Corpus(dev)(nlp), CalibrationSettings(recall=0.3))["sequence_labeler"]
    assert second.before == first.before and second.calibration == first.calibration
    # A threshold in the config has priority over that of the calibration.
    pipe.threshold = 1.0
    assert not any(spans_of(nlp.pipe(TEXTS)))
    # New weights have no calibration.
    nlp.initialize(lambda: examples(nlp))
    assert pipe.calibration is None and "calibration" not in nlp.meta


def test_a_pipeline_that_is_trained_on_is_no_longer_calibrated(stored, dev, tmp_path):
    nlp = spacy.load(stored)
    calibrate(nlp, Corpus(dev)(nlp), CalibrationSettings())
    nlp.to_disk(tmp_path / "calibrated")
    nlp = spacy.load(tmp_path / "calibrated")
    pipe = nlp.get_pipe("sequence_labeler")
    data = examples(nlp)
    # An update that does not change weights keeps the calibration.
    nlp.update(data, sgd=False)
    assert pipe.calibration is not None and nlp.meta["calibration"]
    with pytest.warns(
        UserWarning, match=r"'sequence_labeler' was calibrated and is now trained further.*Calibrate .* again"
    ):
        nlp.update(data, sgd=Adam(0.001))
    assert pipe.calibration is None and "calibration" not in nlp.meta
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        nlp.update(data, sgd=Adam(0.001))
    nlp.to_disk(tmp_path / "trained")
    again = spacy.load(tmp_path / "trained")
    assert again.get_pipe("sequence_labeler").calibration is None and "calibration" not in again.meta


def test_labels_with_dollar_signs_are_no_formulas_on_the_page(stored, dev, tmp_path):
    nlp, docs = spacy.load(stored), list(DocBin().from_disk(dev).get_docs(spacy.blank("xx").vocab))
    nlp.get_pipe("sequence_labeler").cfg["labels"] = ["$x_$", "city", "playlist"]
    nlp.to_disk(tmp_path / "pipeline")
    for doc in docs:
        doc.set_ents([Span(doc, e.start, e.end, label=e.label_.replace("artist", "$x_$")) for e in doc.ents])
    DocBin(docs=docs).to_disk(tmp_path / "dev.spacy")
    done = command(tmp_path / "pipeline", tmp_path / "dev.spacy", "--output", tmp_path / "out", "--recall", "0.5")
    assert done.exit_code == 0, done.output
    assert "$x_$" in (tmp_path / "out" / "calibration.html").read_text(encoding="utf8")


def test_a_calibrated_head_of_another_pipeline(stored, dev, tmp_path):
    """The meta of the pipeline that it was sourced into says what it is, and no longer when it was trained on."""
    source = spacy.load(stored)
    calibrate(source, Corpus(dev)(source), CalibrationSettings())
    nlp = spacy.blank("xx")
    nlp.add_pipe("sequence_labeler", source=source)
    save(nlp, tmp_path / "sourced")
    again = spacy.load(tmp_path / "sourced")
    assert again.get_pipe("sequence_labeler").calibration is not None
    found, expected = (one.meta["calibration"]["sequence_labeler"] for one in (again, source))
    assert found["documents"] == 80 and found["ece_after"] == pytest.approx(expected["ece_after"])
    with pytest.warns(UserWarning, match="was calibrated and is now trained further"):
        nlp.update(examples(nlp), sgd=Adam(0.001))
    save(nlp, tmp_path / "trained")
    assert "calibration" not in spacy.load(tmp_path / "trained").meta


@pytest.fixture(scope="module")
def nested(tmp_path_factory):
    """A pipeline with a `span_labeler`, and documents of which a third have no spans."""
    fix_random_seed(0)
    nlp = spacy.blank("xx")
    nlp.add_pipe("span_labeler", config={"model": {"@architectures": "spacy-lsbillm.SpanLabeler.v1", "tok2vec": CNN}})
    gold = [
        ("the mayor of the city of new york met a friend", [(0, 8, "who"), (3, 8, "place"), (6, 8, "place")]),
        ("a friend of my uncle in paris", [(0, 5, "who"), (3, 5, "who"), (6, 7, "place")]),
    ]
    data = []
    for text, spans in gold:
        doc = nlp.make_doc(text)
        doc.spans["sc"] = [Span(doc, start, end, label=label) for start, end, label in spans]
        data.append(Example(nlp.make_doc(text), doc))
    nlp.initialize(lambda: data)
    optimizer = Adam(0.01)
    for _ in range(60):
        nlp.update(data, sgd=optimizer)
    made = [data[i % 2].reference.copy() for i in range(60)]
    for doc in made[::3]:
        doc.spans["sc"] = []
    path = tmp_path_factory.mktemp("nested")
    DocBin(docs=made).to_disk(path / "dev.spacy")
    nlp.to_disk(path / "pipeline")
    return path


def test_a_calibrated_span_labeler(nested, tmp_path):
    plain = spacy.load(nested / "pipeline")
    texts = [example.text for example in list(Corpus(nested / "dev.spacy")(plain))[:2]]
    before = list(plain.pipe(texts))
    done = command(
        nested / "pipeline", nested / "dev.spacy", "--output", tmp_path / "out", "--guarantee", "0.8", "--no-page"
    )
    assert done.exit_code == 0, done.output
    nlp = spacy.load(tmp_path / "out")
    after = list(nlp.pipe(texts))
    assert spans_of(after, "sc") == spans_of(before, "sc") and len(before[0].spans["sc"]) == 3
    for one, other in zip(before, after, strict=True):
        # Two of three are right.
        assert np.all(np.array(one.spans["sc"].attrs["scores"]) > 0.8)
        assert other.spans["sc"].attrs["scores"] == pytest.approx([2 / 3] * len(other.spans["sc"]), abs=0.12)
        group = other.spans["candidates"]
        assert {(s.start, s.end, s.label) for s in other.spans["sc"]} <= {(s.start, s.end, s.label) for s in group}
    errors = [pipe.evaluate(list(Corpus(nested / "dev.spacy")(pipe)))["spans_sc_ece"] for pipe in (plain, nlp)]
    assert errors[1] < errors[0] / 2
    # The same as with a sequence_labeler: thresholds, switched off, dropped.
    calibrate(nlp, Corpus(nested / "dev.spacy")(nlp), CalibrationSettings(precision=0.9))
    pipe = nlp.get_pipe("span_labeler")
    assert set(pipe.calibration.threshold) == {"who", "place"} and "candidates" not in nlp(texts[0]).spans
    pipe.calibration = replace(pipe.calibration, threshold={"who": 0.99})
    doc = nlp(texts[0])
    assert {span.label_ for span in doc.spans["sc"]} == {"place"}
    pipe.calibrated = False
    assert nlp(texts[0]).spans["sc"].attrs["scores"] == pytest.approx(before[0].spans["sc"].attrs["scores"], abs=1e-5)
    with pytest.warns(UserWarning, match="'span_labeler' was calibrated and is now trained further"):
        nlp.update(list(Corpus(nested / "dev.spacy")(nlp))[:2], sgd=Adam(0.001))
    assert pipe.calibration is None and "calibration" not in nlp.meta


def test_refusals_of_the_command(stored, dev, tmp_path):
    output = ["--output", tmp_path / "out", "--no-page"]
    small = tmp_path / "small.spacy"
    DocBin(docs=list(DocBin().from_disk(dev).get_docs(spacy.blank("xx").vocab))[:10]).to_disk(small)
    for arguments, message in (
        ([stored, small, *output], "50 are needed, in about"),
        ([stored, dev, *output, "--precision", "2"], "precision = 2.0 is not allowed"),
        ([stored, tmp_path / "no.spacy", *output], "there is no corpus"),
        ([stored, dev, *output, "--guarantee", "0.9", "--delta", "0.00000001"], "it takes"),
        ([stored, dev, "--output", tmp_path, "--no-page"], "is no pipeline"),
    ):
        done = command(*arguments)
        assert done.exit_code == 1 and message in " ".join(done.output.split()), done.output
        assert not (tmp_path / "out").exists()
    nlp = spacy.blank("xx")
    nlp.add_pipe("sentencizer")
    with pytest.raises(SettingError, match=r"has no sequence_labeler, no span_labeler, .* it has: 'sentencizer'"):
        calibrate(nlp, [], CalibrationSettings())
    nlp = spacy.load(stored)
    with pytest.raises(DataError, match=r"no document has annotation for 'sequence_labeler': doc\.ents is missing"):
        calibrate(nlp, [], CalibrationSettings())
    nlp.get_pipe("sequence_labeler").scores = False
    with pytest.raises(SettingError, match="Set it to true"):
        calibrate(nlp, [], CalibrationSettings())
