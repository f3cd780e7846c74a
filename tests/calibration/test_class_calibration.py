"""`calibrate` for classifiers: temperatures and curves, on made-up evidence and in small pipelines."""

import json

import numpy as np
import pytest
import spacy
from pipelines import CNN
from spacy.tokens import DocBin, Span
from spacy.training import Corpus, Example
from spacy.util import fix_random_seed
from thinc.api import Adam
from typer.testing import CliRunner

from spacy_lsbillm.calibration import CalibrationSettings, Evidence, calibrate
from spacy_lsbillm.calibration.classes import fit_classes, probabilities_of_classes
from spacy_lsbillm.cli import app
from spacy_lsbillm.errors import DataError, SettingError
from spacy_lsbillm.saving import save
from spacy_lsbillm.saving.callbacks import create_save_whole_v1, create_write_card_v1
from spacy_lsbillm.tagging import calibration_error

pytestmark = pytest.mark.any_stack

TEXTS = {
    "weather": "will it rain in the city today",
    "music": "play a song of the band",
    "food": "book a table for two",
}


def softmax(scores):
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def of_classes(p, right, best):
    document, label = np.indices(p.shape).reshape(2, -1)
    labels = tuple(f"c{i}" for i in range(p.shape[1]))
    return Evidence(labels, right.astype(np.int64), 0, document, label, p.ravel(), right.ravel(), best.ravel())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_exclusive_classes_is_found(temperature):
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, (3000, 5))
    truth = (softmax(scores).cumsum(axis=1) > rng.random((3000, 1))).argmax(axis=1)
    right = np.arange(5) == truth[:, None]
    p = softmax(scores * temperature)
    evidence = of_classes(p, right, np.arange(5) == p.argmax(axis=1)[:, None])
    found = fit_classes(evidence, exclusive=True)
    if temperature == 1:
        assert found.curve.a == pytest.approx(1, abs=0.06)
    else:
        assert found.kind == "temperature" and 1 / found.curve.a == pytest.approx(temperature, rel=0.06)
        assert found.losses["temperature"] < found.losses["none"]
        assert calibration_error(evidence.written.score, evidence.written.right) > 0.05
    assert calibration_error(found.held_out, evidence.written.right) < 0.03
    assert probabilities_of_classes(evidence, found, True) == pytest.approx(softmax(scores).max(axis=1), abs=0.03)


def test_few_documents_change_little():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    right = np.array([[True, False], [False, True], [False, True]])
    found = fit_classes(of_classes(p, right, p == p.max(axis=1, keepdims=True)), exclusive=True)
    assert found.kind == "none" or 0.5 < found.curve.a < 2


def trained(factory, path):
    """A classifier, and documents of which some are annotated with a wrong class."""
    fix_random_seed(0)
    nlp = spacy.blank("xx")
    multi_label = factory == "textcat_multilabel"
    model = {"@architectures": "spacy-lsbillm.PooledTextCat.v1", "tok2vec": CNN, "exclusive_classes": not multi_label}
    scorer = {"@scorers": "spacy-lsbillm.textcat_scorer.v1", "multi_label": multi_label}
    nlp.add_pipe(factory, config={"model": model, "scorer": scorer})
    data = []
    for own, text in TEXTS.items():
        doc = nlp.make_doc(text)
        doc.cats = {name: float(name == own) for name in TEXTS}
        data.append(Example(nlp.make_doc(text), doc))
    nlp.initialize(lambda: data)
    optimizer = Adam(0.01)
    for _ in range(60):
        nlp.update(data, sgd=optimizer)
    made = []
    for i in range(90):
        doc = data[i % 3].reference.copy()
        if i % 4 == 0:
            doc.cats = {name: float(name == "music") for name in TEXTS}
        made.append(doc)
    DocBin(docs=made).to_disk(path / "dev.spacy")
    nlp.to_disk(path / "pipeline")
    return path


@pytest.fixture(scope="module")
def exclusive(tmp_path_factory):
    return trained("textcat", tmp_path_factory.mktemp("exclusive"))


@pytest.fixture(scope="module")
def independent(tmp_path_factory):
    return trained("textcat_multilabel", tmp_path_factory.mktemp("independent"))


def command(*arguments):
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


def cats_of(nlp):
    return [list(doc.cats.values()) for doc in nlp.pipe(TEXTS.values())]


def error_of(nlp, dev):
    return nlp.evaluate(list(Corpus(dev)(nlp)))["cats_ece"]


@pytest.mark.parametrize("kind", ["exclusive", "independent"])
def test_a_calibrated_classifier(kind, request, tmp_path):
    folder = request.getfixturevalue(kind)
    dev, name = folder / "dev.spacy", "textcat" if kind == "exclusive" else "textcat_multilabel"
    plain = spacy.load(folder / "pipeline")
    before = cats_of(plain)
    done = command(folder / "pipeline", dev, "--output", tmp_path / "out", "--precision", "0.6")
    assert done.exit_code == 0, done.output
    assert "are not applied: doc.cats has the probabilities of all" in " ".join(done.output.split())
    page = (tmp_path / "out" / "calibration.html").read_text(encoding="utf8")
    assert page.count("<svg") == 2 and "Classes in 15 groups" in page
    nlp = spacy.load(tmp_path / "out")
    after = cats_of(nlp)
    # One temperature for all classes is not enough if one of them is always right and the others are not. How much
    # error remains depends on the arithmetic, to which the weights of such a short training are sensitive.
    assert error_of(nlp, dev) < error_of(plain, dev) * (1.0 if kind == "exclusive" else 0.6)
    assert np.argmax(after, axis=1).tolist() == np.argmax(before, axis=1).tolist()
    if kind == "exclusive":
        assert np.sum(after, axis=1) == pytest.approx(1, abs=1e-5)
    found = json.loads((tmp_path / "out" / "meta.json").read_text(encoding="utf8"))["calibration"][name]
    assert found["classes"] == (90 if kind == "exclusive" else 270) and found["ece_after"] < found["ece_before"]
    assert set(found["threshold"]) == set(TEXTS)
    # Saved again, read from bytes, switched off, calibrated again from the model's own probabilities.
    nlp.to_disk(tmp_path / "again")
    assert cats_of(spacy.load(tmp_path / "again")) == after
    assert cats_of(spacy.load(folder / "pipeline").from_bytes(nlp.to_bytes())) == after
    off = spacy.load(tmp_path / "out", config={"components": {name: {"model": {"calibrated": False}}}})
    assert np.array(cats_of(off)) == pytest.approx(np.array(before), abs=1e-6)
    second = calibrate(nlp, Corpus(dev)(nlp), CalibrationSettings())[name]
    assert second.before == pytest.approx(found["ece_before"]) and cats_of(nlp) == after


def test_the_probabilities_of_the_report_are_those_of_the_pipeline(independent):
    """Also of scores so large that their probabilities are 1 in float32."""
    nlp = spacy.load(independent / "pipeline")
    pipe = nlp.get_pipe("textcat_multilabel")
    output = pipe.model.get_ref("output_layer")
    for name in ("W", "b"):
        output.set_param(name, output.get_param(name) * 4)
    assert np.max(cats_of(nlp)) == 1
    examples = list(Corpus(independent / "dev.spacy")(nlp))
    report = calibrate(nlp, examples, CalibrationSettings())["textcat_multilabel"]
    assert report.fitted.kind != "none"
    docs = nlp.pipe(example.text for example in examples)
    found = [probability for doc in docs for probability in doc.cats.values()]
    assert found == pytest.approx(report.probabilities.tolist(), abs=1e-5)


def test_a_classifier_that_is_trained_on_is_no_longer_calibrated(exclusive):
    nlp = spacy.load(exclusive / "pipeline")
    calibrate(nlp, Corpus(exclusive / "dev.spacy")(nlp), CalibrationSettings())
    with pytest.warns(UserWarning, match=r"was calibrated and is now being trained.*Calibrate the pipeline again"):
        nlp.update(list(Corpus(exclusive / "dev.spacy")(nlp))[:3], sgd=Adam(0.0))
    assert np.array(cats_of(nlp)) == pytest.approx(np.array(cats_of(spacy.load(exclusive / "pipeline"))), abs=1e-5)


def test_what_is_saved_does_not_say_that_it_is_calibrated_when_it_was_trained_on(exclusive, tmp_path):
    nlp = spacy.load(exclusive / "pipeline")
    calibrate(nlp, Corpus(exclusive / "dev.spacy")(nlp), CalibrationSettings())
    save(nlp, tmp_path / "calibrated")
    nlp = spacy.load(tmp_path / "calibrated")
    stored = nlp.meta["calibration"]
    assert "textcat" in stored
    with pytest.warns(UserWarning, match="was calibrated and is now being trained"):
        nlp.update(list(Corpus(exclusive / "dev.spacy")(nlp))[:3], sgd=Adam(0.01))
    for name, callback in (("whole", create_save_whole_v1()), ("with_card", create_write_card_v1())):
        nlp.meta["calibration"] = dict(stored)
        callback(nlp).to_disk(tmp_path / name)
        assert "calibration" not in spacy.load(tmp_path / name).meta


def test_a_new_class_drops_the_calibration(independent):
    nlp = spacy.load(independent / "pipeline")
    before = cats_of(nlp)
    calibrate(nlp, Corpus(independent / "dev.spacy")(nlp), CalibrationSettings())
    nlp.get_pipe("textcat_multilabel").add_label("sports")
    assert np.array(cats_of(nlp))[:, :3] == pytest.approx(np.array(before), abs=1e-6)


def test_classes_without_annotation_and_with_unknown_names(independent):
    nlp = spacy.load(independent / "pipeline")
    docs = list(DocBin().from_disk(independent / "dev.spacy").get_docs(nlp.vocab))
    for i, doc in enumerate(docs):
        kept = {"weather": doc.cats["weather"], "sports": 1.0} if i % 2 else {}
        doc.cats = {**doc.cats} if i % 3 == 0 else kept
    data = [Example(nlp.make_doc(doc.text), doc) for doc in docs]
    with pytest.warns(UserWarning, match="30 gold classes have labels that 'textcat_multilabel' does not have"):
        found = calibrate(nlp, data, CalibrationSettings())["textcat_multilabel"]
    assert len(found.evidence.gold) == 60 and found.evidence.best.sum() == 30 * 3 + 30


def test_refusals(exclusive, tmp_path):
    dev, output = exclusive / "dev.spacy", ["--output", tmp_path / "out", "--no-page"]
    for arguments, message in (
        (["--guarantee", "0.9"], "a recall can be guaranteed only for spans"),
        (["--component", "ner"], "--component ner is not allowed. Use one of: textcat."),
    ):
        done = command(exclusive / "pipeline", dev, *output, *arguments)
        assert done.exit_code == 1 and message in " ".join(done.output.split()), done.output
    nlp = spacy.load(exclusive / "pipeline")
    examples = [Example(nlp.make_doc("a song"), nlp.make_doc("a song"))]
    with pytest.raises(DataError, match=r"no document has annotation for 'textcat': doc\.cats is missing in all"):
        calibrate(nlp, examples, CalibrationSettings())
    with pytest.raises(DataError, match=r"'textcat': it finds 12 classes in 12 annotated documents.*about 50 doc"):
        calibrate(nlp, list(Corpus(dev)(nlp))[:12], CalibrationSettings())
    nlp = spacy.blank("xx")
    nlp.add_pipe("textcat")
    with pytest.raises(SettingError, match="no textcat or textcat_multilabel with"):
        calibrate(nlp, [], CalibrationSettings())


def test_a_head_without_annotation_is_left_as_it_is(exclusive):
    nlp = spacy.load(exclusive / "pipeline")
    nlp.add_pipe(
        "sequence_labeler", config={"model": {"@architectures": "spacy-lsbillm.SequenceLabeler.v1", "tok2vec": CNN}}
    )
    doc = nlp.make_doc("a city")
    doc.set_ents([Span(doc, 1, 2, label="place")])
    nlp.get_pipe("sequence_labeler").initialize(lambda: [Example(nlp.make_doc("a city"), doc)], nlp=nlp)
    with pytest.warns(UserWarning, match=r"no document has annotation for 'sequence_labeler'.*does not change"):
        found = calibrate(nlp, Corpus(exclusive / "dev.spacy")(nlp), CalibrationSettings())
    assert list(found) == ["textcat"]
    with pytest.raises(DataError, match="no document has annotation for 'sequence_labeler'"):
        calibrate(
            nlp, Corpus(exclusive / "dev.spacy")(nlp), CalibrationSettings(components=("sequence_labeler", "textcat"))
        )
