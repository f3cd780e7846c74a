"""`lsbillm distill`: a teacher's predictions for plain text are stored as they are, and students learn them."""

import json
import re
import shutil

import numpy as np
import pytest
import spacy
from corpora import run, write_corpus
from heads import CNN, corpus, fit, labeler, textcat
from pipelines import LISTENER, build
from spacy.tokens import Doc, DocBin
from spacy.training import Corpus, Example
from spacy.util import fix_random_seed, registry
from thinc.api import Adam, Config
from tiny import TEXTS

from spacy_lsbillm.distillation import read_teacher
from spacy_lsbillm.distillation.student import read_student
from spacy_lsbillm.distillation.taught import close_taught
from spacy_lsbillm.errors import DataError, SettingError, StorageError
from spacy_lsbillm.layers.soft_classes import SOFT_CLASSES
from spacy_lsbillm.pipeline.soft_tags import SOFT_TAGS, SoftTags
from spacy_lsbillm.tagging import Scheme, tag_marginals

pytestmark = pytest.mark.any_stack

COPIES = 6
TOK2VEC = {"factory": "tok2vec", "model": CNN}
HEARD = {"@architectures": "spacy.Tok2VecListener.v1", "width": CNN["width"], "upstream": "tok2vec"}
LABELER = {
    "factory": "sequence_labeler",
    "model": {"@architectures": "spacy-lsbillm.SequenceLabeler.v1", "tok2vec": HEARD},
}
NER = {
    "factory": "ner",
    "model": {
        "@architectures": "spacy.TransitionBasedParser.v2",
        "state_type": "ner",
        "extra_state_tokens": False,
        "hidden_width": 16,
        "maxout_pieces": 2,
        "use_upper": False,
        "tok2vec": HEARD,
    },
}
POOLED = {
    "factory": "textcat",
    "model": {"@architectures": "spacy-lsbillm.PooledTextCat.v1", "exclusive_classes": True, "tok2vec": HEARD},
}
BOW = {
    "factory": "textcat",
    "model": {
        "@architectures": "spacy.TextCatBOW.v3",
        "exclusive_classes": True,
        "length": 1024,
        "ngram_size": 1,
        "no_output_layer": False,
    },
}
HEADS = {"sequence_labeler": LABELER, "ner": NER, "textcat": POOLED}


def student(path, dev, heads=HEADS, **changes):
    """A config with a CNN and heads that listen to it."""
    config = {
        "paths": {"dev": str(dev) if dev else None},
        "nlp": {"lang": "xx", "pipeline": ["tok2vec", *heads]},
        "components": {"tok2vec": TOK2VEC, **heads},
        "corpora": {"dev": {"@readers": "spacy.Corpus.v1", "path": "${paths.dev}"}},
        "training": {
            "seed": 0,
            "gpu_allocator": None,
            "max_steps": 60,
            "eval_frequency": 30,
            "dropout": 0.0,
            "optimizer": {"@optimizers": "Adam.v1", "learn_rate": 0.01},
        },
        "initialize": {"components": {}},
    }
    for place, value in changes.items():
        *blocks, name = place.split("__")
        block = config
        for part in blocks:
            block = block.setdefault(part, {})
        block[name] = value
    Config(config).to_disk(path, interpolate=False)
    return path


@pytest.fixture(scope="module")
def place(make_base, tmp_path_factory):
    """A folder with a teacher, a text, dev documents and the student that was trained."""
    folder = tmp_path_factory.mktemp("distill")
    nlp = build(make_base(num_hidden_layers=2), heads=())
    labeler(nlp)
    textcat(nlp, "mean", tok2vec=LISTENER)
    fit(nlp, corpus(nlp), steps=60)
    nlp.meta |= {"name": "teacher", "version": "1.2.3"}
    nlp.to_disk(folder / "teacher")
    (folder / "text.txt").write_text("".join(f"{text}\n" for text in TEXTS * COPIES), encoding="utf8")
    write_corpus(folder / "dev.spacy", copies=1)
    student(folder / "student.cfg", folder / "dev.spacy")
    run(*arguments(folder, "student.cfg", "out"))
    return folder


def arguments(place, config, output, *more):
    files = (place / "teacher", place / config, place / "text.txt")
    return ("lsbillm", "distill", *files, "--output", place / output, "--processes", 2, "--quiet", *more)


def reader(place, **settings):
    block = {"@readers": "spacy-lsbillm.DistilledCorpus.v1", "path": str(place / "out" / "targets"), **settings}
    return registry.resolve({"corpus": block})["corpus"]


def with_targets(place, name):
    """Another output folder with all of the teacher's predictions."""
    shutil.copytree(place / "out" / "targets", place / name / "targets")
    return name


def test_students_of_all_kinds_find_what_their_teacher_finds(place):
    teacher, taught = spacy.load(place / "teacher"), spacy.load(place / "out" / "training" / "model-best")
    for name in HEADS:
        with taught.select_pipes(enable=["tok2vec", name]):
            docs = list(taught.pipe(TEXTS))
        for doc, expected in zip(docs, teacher.pipe(TEXTS), strict=True):
            if name == "textcat":
                assert max(doc.cats, key=doc.cats.get) == max(expected.cats, key=expected.cats.get)
            else:
                found = [(ent.text, ent.label_) for ent in doc.ents]
                assert found == [(ent.text, ent.label_) for ent in expected.ents]
                assert found


def test_the_student_says_who_taught_it(place):
    said = spacy.load(place / "out" / "training" / "model-best").meta["distilled"]
    assert said["teacher"]["name"] == "xx_teacher" and said["teacher"]["version"] == "1.2.3"
    assert said["teacher"]["fingerprint"].startswith("content ")
    assert said["documents"] == len(TEXTS) * COPIES and said["spans"] >= said["documents"]
    assert said["soft"] == ["sequence_labeler", "textcat"] and said["hard"] == ["ner"]
    assert (said["floor"], said["top_tags"], said["gold"]) == (0.5, 8, "none")


def test_what_is_stored_is_what_the_teacher_says(place):
    nlp = spacy.load(place / "teacher")
    pipe = nlp.get_pipe("sequence_labeler")
    for example in list(reader(place)(spacy.blank("xx")))[: len(TEXTS)]:
        doc = nlp(example.reference.text)
        scores = pipe.model.predict([doc])[0]
        log_probs = (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype("f")
        expected = tag_marginals(log_probs, np.array([len(doc)]), pipe.scheme)
        told = example.reference.user_data[SOFT_TAGS][""]
        assert told.scheme == pipe.scheme and len(told.counts) == len(doc)
        found = np.stack([told.of_tag(tag) for tag in range(pipe.scheme.n_tags)], axis=1)
        assert found == pytest.approx(expected, abs=2e-3)
        classes = nlp.get_pipe("textcat").labels
        assert example.predicted.user_data[SOFT_CLASSES] == pytest.approx([doc.cats[x] for x in classes], abs=1e-3)


def test_the_same_command_says_that_all_is_done(place):
    best = place / "out" / "training" / "model-best" / "meta.json"
    before = best.stat().st_mtime_ns
    assert "is complete already" in " ".join(run(*arguments(place, "student.cfg", "out")).split())
    assert best.stat().st_mtime_ns == before


def test_a_training_that_was_stopped_goes_on(place):
    shutil.copytree(place / "out", place / "stopped")
    for config in (place / "stopped" / "config.cfg",):
        config.write_text(config.read_text().replace(str(place / "out"), str(place / "stopped")))
    (place / "stopped" / "distilled.json").unlink()
    said = run(*arguments(place, "student.cfg", "stopped"))
    assert "learned sequence_labeler, textcat from the probabilities and ner from the labels" in " ".join(said.split())
    assert json.loads((place / "stopped" / "distilled.json").read_text())["teacher"]["name"] == "xx_teacher"


def test_another_student_is_not_mixed_with_the_first(place):
    student(place / "other.cfg", place / "dev.spacy", heads={"ner": NER})
    said = " ".join(run(*arguments(place, "other.cfg", "out"), code=1).split())
    assert "was started with another student config, gold or --floor" in said


def test_gold_is_read_beside_what_was_taught(place):
    examples = list(reader(place, gold=str(place / "dev.spacy"))(spacy.blank("xx")))
    assert len(examples) == len(TEXTS) * (COPIES + 1)
    assert [SOFT_TAGS in example.reference.user_data for example in examples[3:5]] == [False, True]
    with pytest.raises(DataError, match=r"neither a \.spacy file nor a folder"):
        reader(place, gold=str(place / "text.txt"))


def test_a_teacher_of_classes_says_nothing_of_entities(place, tmp_path):
    nlp = spacy.load(place / "teacher")
    nlp.remove_pipe("sequence_labeler")
    nlp.to_disk(tmp_path / "teacher")
    student(tmp_path / "student.cfg", place / "dev.spacy", heads={"textcat": POOLED}, training__max_steps=1)
    shutil.copy(place / "text.txt", tmp_path)
    run(*arguments(tmp_path, "student.cfg", "out"))
    [first, *_] = reader(tmp_path)(spacy.blank("xx"))
    assert first.reference.cats and not first.reference.has_annotation("ENT_IOB")
    # Read directly from storage, the probabilities of tags cannot be used.
    [stored, *_] = Corpus(place / "out" / "targets" / "shards")(blank := spacy.blank("xx"))
    pipe = labeler(blank, tok2vec=CNN)
    blank.initialize(lambda: corpus(blank))
    with pytest.raises(SettingError, match=r"read them with spacy-lsbillm.DistilledCorpus.v1"):
        pipe.get_loss([stored], [np.zeros((len(stored.predicted), pipe.scheme.n_tags), "f")])


def test_what_no_component_learns_is_not_there(place):
    """Components that need it are trained on gold alone."""
    copy = place / "more" / "out" / "targets"
    shutil.copytree(place / "out" / "targets", copy)
    (shard,) = (copy / "shards").glob("*.spacy")
    docs = list(DocBin().from_disk(shard).get_docs(spacy.blank("xx").vocab))
    for doc in docs:
        doc.spans["sc"] = list(doc.ents)
        doc[0].tag_ = "X"
    DocBin(docs=docs, store_user_data=True).to_disk(shard)
    (copy / "files.sha256").unlink()
    close_taught(copy, read_teacher(place / "teacher"))
    [first, *_] = reader(place / "more", classes="none")(spacy.blank("xx"))
    assert not first.reference.spans and not first.reference.has_annotation("TAG") and not first.reference.cats
    assert SOFT_CLASSES not in first.predicted.user_data
    assert first.reference.ents and SOFT_TAGS in first.reference.user_data
    other = {"sequence_labeler": LABELER, "textcat_multilabel": {"factory": "textcat_multilabel"}}
    for heads, classes in ((HEADS, "soft"), ({"textcat": BOW}, "hard"), (other, "none")):
        config = student(place / f"{classes}.cfg", place / "dev.spacy", heads=heads)
        assert read_student(config, {}, read_teacher(place / "teacher")).classes == classes


def test_what_the_teacher_is_not_sure_of_is_missing(place):
    """Each token and document gets its own probability, in place of the teacher's."""
    copy = place / "unsure" / "out" / "targets"
    shutil.copytree(place / "out" / "targets", copy)
    (shard,) = (copy / "shards").glob("*.spacy")
    docs = list(DocBin().from_disk(shard).get_docs(spacy.blank("xx").vocab))
    first, second = docs[:2]
    (ent,) = first.ents
    ent._.ent_score = 0.6
    first.cats = {"book": 0.6, "play": 0.3, "weather": 0.1}
    packed = second.user_data[SOFT_TAGS][""]
    told = SoftTags.unpacked(Scheme("biluo", ("artist", "city", "playlist")), packed, second)
    counts, tags, probabilities = told.counts.copy(), told.tags.copy(), told.probabilities.copy()
    # The first token of the second text is outside of entities, with a probability of 0.7.
    at = np.flatnonzero((told.rows() == 0) & (tags == 0))
    probabilities[at] = 0.7
    second.user_data[SOFT_TAGS][""] = SoftTags(told.scheme, counts, tags, probabilities).packed()
    second.cats = {"book": 0.02, "play": 0.95, "weather": 0.03}
    DocBin(docs=docs, store_user_data=True).to_disk(shard)
    with pytest.raises(StorageError, match="altered since the teacher was run"):
        reader(place / "unsure")
    (copy / "files.sha256").unlink()
    close_taught(copy, read_teacher(place / "teacher"))
    read = {}
    for floor in (0.5, 0.65, 0.9):
        examples = list(reader(place / "unsure", floor=floor, classes="hard")(spacy.blank("xx")))
        one, two = (example.reference for example in examples[:2])
        codes = [doc.to_array("ENT_IOB").tolist() for doc in (one, two)]
        read[floor] = (len(one.ents), codes[0][ent.start : ent.end], codes[1][0], one.cats, two.cats)
    missing, outside = 0, 2
    sure = {"book": 0.0, "play": 1.0, "weather": 0.0}
    assert read[0.5] == (1, [3], outside, {"book": 1.0, "play": 0.0, "weather": 0.0}, sure)
    assert read[0.65] == (0, [missing], outside, {}, sure)
    assert read[0.9] == (0, [missing], missing, {}, sure)


def made(nlp, words, told, predicted=None):
    reference = Doc(nlp.vocab, words=words)
    reference.set_ents([reference.char_span(0, len(words[0]), label="x")])
    reference.user_data[SOFT_TAGS] = {"": told}
    return Example(predicted or Doc(nlp.vocab, words=words), reference)


def told_of(scheme, rows):
    """One row per token: its tags with their probabilities."""
    counts = np.array([len(row) for row in rows], dtype=np.uint8)
    tags = np.array([tag for row in rows for tag in row], dtype=np.uint16)
    probabilities = np.array([share for row in rows for share in row.values()], dtype=np.float16)
    return SoftTags(scheme, counts, tags, probabilities)


def probabilities_of(nlp, doc):
    scores = nlp.get_pipe("sequence_labeler").model.predict([doc])[0]
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)


def test_a_head_learns_the_probabilities_that_it_is_told():
    """It learns nothing from tokens without probabilities, nor from hard labels on other tokens."""
    nlp = spacy.blank("xx")
    pipe = labeler(nlp, tok2vec=CNN, scheme="iob2")
    scheme = Scheme("iob2", ("x",))
    example = made(nlp, ["a", "b", "c"], told_of(scheme, [{0: 0.75, 1: 0.25}, {}, {0: 0.5, 1: 0.125, 2: 0.375}]))
    fix_random_seed(0)
    nlp.initialize(lambda: [example])
    _, gradient = pipe.get_loss([example], pipe.model.predict([example.predicted]))
    assert not gradient[0][1].any() and gradient[0][0].any()
    optimizer = Adam(0.01)
    for _ in range(150):
        nlp.update([example], sgd=optimizer)
    found = probabilities_of(nlp, example.predicted)
    assert found[0] == pytest.approx([0.75, 0.25, 0.0], abs=0.02)
    assert found[2] == pytest.approx([0.5, 0.125, 0.375], abs=0.02)


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_classifier_learns_the_probabilities_that_it_is_told(exclusive):
    nlp = spacy.blank("xx")
    pipe = textcat(nlp, "mean", exclusive=exclusive, tok2vec=CNN)
    example = corpus(nlp)[0]
    told = np.array([0.25, 0.625, 0.125] if exclusive else [0.75, 0.5, 0.25], dtype="f")
    example.predicted.user_data[SOFT_CLASSES] = told
    fix_random_seed(0)
    nlp.initialize(lambda: [example])
    optimizer = Adam(0.01)
    for _ in range(100):
        nlp.update([example], sgd=optimizer)
    assert pipe.model.predict([example.predicted])[0] == pytest.approx(told, abs=0.02)
    example.predicted.user_data[SOFT_CLASSES] = told[:2]
    with pytest.raises(SettingError, match="probabilities for 2 classes, and the classifier has 3"):
        nlp.update([example])


@pytest.mark.parametrize("transitions", [None, "learned"], ids=["constraint", "learned"])
def test_tokens_that_student_and_teacher_have_in_common_are_learned(transitions):
    nlp = spacy.blank("xx")
    pipe = labeler(nlp, tok2vec=CNN, scheme="iob2", transitions=transitions)
    scheme = Scheme("iob2", ("x",))
    predicted = Doc(nlp.vocab, words=["one", "two", "three", "four"], spaces=[True, False, True, False])
    example = made(nlp, ["one", "twothree", "four"], told_of(scheme, [{1: 1.0}, {0: 1.0}, {2: 1.0}]), predicted)
    nlp.initialize(lambda: [example])
    _, gradient = pipe.get_loss([example], pipe.model.predict([predicted]))
    assert (np.abs(gradient[0]).max(axis=1) > 1e-6).tolist() == [True, False, False, True]
    assert np.argmin(gradient[0], axis=1)[[0, 3]].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("settings", "scheme", "error"),
    [
        ({}, Scheme("iob2", ("x",)), "has the scheme 'biluo' and 1 labels .*teacher has the scheme 'iob2'"),
        ({}, Scheme("biluo", ("x", "y")), "and 1 labels .*teacher has .* 2 labels"),
        ({"focal_gamma": 2.0}, Scheme("biluo", ("x",)), "focal_gamma and label_smoothing cannot be used"),
    ],
)
def test_a_head_refuses_what_is_not_of_its_tags(settings, scheme, error):
    nlp = spacy.blank("xx")
    labeler(nlp, tok2vec=CNN, **settings)
    example = made(nlp, ["a"], told_of(scheme, [{0: 1.0}]))
    nlp.initialize(lambda: [example])
    with pytest.raises(SettingError, match=error):
        nlp.update([example])


@pytest.mark.parametrize(
    ("heads", "changes", "error"),
    [
        ({"tagger": {"factory": "tagger"}}, {}, "no component of the student can learn from the teacher"),
        ({"sequence_labeler": {**LABELER, "spans_key": "sc"}}, {}, "no component of the student can learn"),
        ({"textcat_multilabel": {"factory": "textcat_multilabel"}}, {}, "no component of the student can learn"),
        ({"sequence_labeler": {**LABELER, "scheme": "iob2"}}, {}, "scheme = 'iob2' .* is not the teacher's"),
        (HEADS, {"initialize__components__sequence_labeler__labels": ["city"]}, "only one of the two has: 'artist'"),
        ({"sequence_labeler": {**LABELER, "class_weights": "balanced"}}, {}, "losses for rare classes"),
        ({"textcat": {**POOLED, "model": {**POOLED["model"], "focal_gamma": 2.0}}}, {}, "losses for rare classes"),
        (HEADS, {"training": {"max_steps": 1}}, "has no training.seed and training.gpu_allocator"),
        ({"sequence_labeler": {**LABELER, "threshold": 2.0}}, {}, "threshold = 2.0 of 'sequence_labeler'"),
        ({"sequence_labeler": {**LABELER, "threshold": {"moon": 0.5}}}, {}, "teacher does not have: 'moon'"),
        (
            {"ner": NER, "tagger": {"factory": "tagger"}},
            {},
            r"'tagger' \(tagger\) cannot learn from this teacher, and there are no gold",
        ),
        (HEADS, {"paths__dev": None}, "no file or folder 'None' of annotated documents"),
    ],
)
def test_students_that_cannot_learn_are_refused_before_anything_is_written(place, tmp_path, heads, changes, error):
    student(tmp_path / "bad.cfg", place / "dev.spacy", heads=heads, **changes)
    output = tmp_path / "never"
    call = ("lsbillm", "distill", place / "teacher", tmp_path / "bad.cfg", place / "text.txt", "--output", output)
    said = " ".join(run(*call, code=1).split())
    assert re.search(error, said), said
    assert not output.exists()


@pytest.mark.parametrize("kind", ["empty", "damaged", "without"])
def test_documents_that_are_no_gold_are_refused_before_anything_is_written(place, tmp_path, kind):
    bad, output = tmp_path / "bad.spacy", tmp_path / "never"
    vocab = spacy.blank("xx").vocab
    DocBin(docs=[Doc(vocab, ["a"])] if kind == "without" else []).to_disk(bad)
    if kind == "damaged":
        bad.write_bytes(bad.read_bytes()[:10])
    call = ("lsbillm", "distill", place / "teacher", place / "student.cfg", place / "text.txt", "--output", output)
    said = " ".join(run(*call, "--paths.dev", bad, code=1).split())
    assert re.search("cannot be read" if kind == "damaged" else "has annotation for 'sequence_labeler' or 'ner'", said)
    if kind != "without":
        said = " ".join(run(*call, "--gold", bad, code=1).split())
        assert re.search("cannot be read" if kind == "damaged" else "holds no documents", said)
    assert not output.exists()


def test_a_teacher_without_heads_and_bad_values_are_refused(place, tmp_path):
    nlp = spacy.blank("xx")
    nlp.add_pipe("sentencizer")
    nlp.to_disk(tmp_path / "none")
    config, output = place / "student.cfg", tmp_path / "never"
    call = ("lsbillm", "distill", tmp_path / "none", config, place / "text.txt", "--output", output)
    assert "has no head that can teach" in " ".join(run(*call, code=1).split())
    for more, error in (
        (("--floor", 0.2), "floor = 0.2 is not allowed"),
        (("--top-tags", 0), "top_tags = 0 is not allowed"),
        (("--gold", place / "text.txt"), "neither a .spacy file"),
    ):
        assert error in " ".join(run(*arguments(place, "student.cfg", "never", *more), code=1).split())
    (place / "full").mkdir()
    (place / "full" / "notes.txt").write_text("mine")
    said = " ".join(run(*arguments(place, "student.cfg", "full"), code=1).split())
    assert "is not empty and holds no distillation" in said
    assert not (place / "never").exists()


def test_text_in_which_nothing_is_found_ends_before_the_training(place):
    student(place / "strict.cfg", place / "dev.spacy", heads={"ner": NER})
    output = with_targets(place, "strict")
    said = " ".join(run(*arguments(place, "strict.cfg", output, "--floor", 0.9999999), code=1).split())
    assert "found no entities with a probability of at least" in said and "nothing for 'ner' to learn" in said
    assert not (place / "strict" / "training").exists()


def test_spacys_own_classifier_learns_hard_labels(place):
    student(place / "bow.cfg", place / "dev.spacy", heads={"textcat": BOW}, training__max_steps=2)
    run(*arguments(place, "bow.cfg", with_targets(place, "bow"), "--gold", place / "dev.spacy"))
    said = spacy.load(place / "bow" / "training" / "model-last").meta["distilled"]
    assert said["hard"] == ["textcat"] and said["soft"] == [] and said["gold"].startswith("content ")
    config = Config().from_disk(place / "bow" / "config.cfg")
    assert config["corpora"]["train"]["classes"] == "hard"
