"""Objects that are sent to other processes: registered ones can be pickled, and documents keep their annotation."""

import multiprocessing
import pickle
import subprocess
import sys
from configparser import ConfigParser
from importlib import import_module

import pytest
import spacy
import spacy.language
import torch
from heads import CNN, corpus, fit, found, labeler, textcat
from pipelines import LISTENER, build
from places import REPOSITORY
from spacy.tokens import DocBin
from spacy.util import load_model_from_config, registry
from thinc.api import Adam, reduce_mean
from tiny import TEXTS

from spacy_lsbillm.backbone.base import BaseSettings
from spacy_lsbillm.backbone.weights import load_causal_lm
from spacy_lsbillm.distillation.taught import close_taught
from spacy_lsbillm.distillation.teacher import Teacher
from spacy_lsbillm.training.config import MODELS, training_config

pytestmark = pytest.mark.any_stack

BASE = REPOSITORY / "assets" / "base"
REDUCE = {f"use_reduce_{what}": True for what in ("first", "last", "max", "mean")}


def entry_points():
    """The registered objects of the distribution: "module:function" by group and name."""
    parser = ConfigParser()
    parser.optionxform = str
    parser.read(REPOSITORY / "setup.cfg")
    return {
        (group, name): place
        for group, lines in parser["options.entry_points"].items()
        for name, place in (line.split(" = ") for line in lines.strip().splitlines())
    }


ENTRY_POINTS = entry_points()
NAMES = [key for key in ENTRY_POINTS if key[0] != "spacy_cli"]


def call(key, **arguments):
    module, name = ENTRY_POINTS[key].split(":")
    return getattr(import_module(module), name)(**arguments)


def tok2vec():
    return registry.resolve({"tok2vec": CNN})["tok2vec"]


def billm(base):
    return call(("spacy_architectures", "spacy-lsbillm.BiLLMModel.v1"), name=str(base))


def taught(folder):
    close_taught(folder, Teacher("one", "0.0.0", "0", exclusive=True, classes=("a", "b")))
    return folder


def arguments(name, base, folder):
    """Arguments for registered functions that require some, by name; add those of a new one here."""
    (folder / "corpus.jsonl").write_text("")
    return {
        "BiLLMModel.v1": lambda: {"name": str(base)},
        "Tok2VecBiLLM.v1": lambda: {"transformer": billm(base), "pooling": reduce_mean()},
        "SequenceLabeler.v1": lambda: {"tok2vec": tok2vec()},
        "SpanLabeler.v1": lambda: {"tok2vec": tok2vec()},
        "PooledTextCat.v1": lambda: {"tok2vec": tok2vec(), "exclusive_classes": True, "pooling": "attention"},
        "TextCatReduce.v1": lambda: {"tok2vec": tok2vec(), "exclusive_classes": True, **REDUCE},
        "SpanFinder.v1": lambda: {
            "tok2vec": tok2vec(),
            **registry.resolve({"scorer": MODELS["span_finder"]["scorer"]}),
        },
        "JsonlCorpus.v1": lambda: {"path": folder / "corpus.jsonl"},
        "MultipleChoice.v1": lambda: {"path": folder / "corpus.jsonl"},
        "JoinedCorpus.v1": lambda: {"path": folder},
        "LabelSetCorpus.v1": lambda: {"path": folder},
        "DistilledCorpus.v1": lambda: {"path": taught(folder)},
        "new_labels.v1": lambda: {"labels": {"ner": ["city"]}},
        "taught_by.v1": lambda: {"card": {"teacher": "one"}},
        "random_masks.v1": lambda: {"masks": ["all", "none"]},
    }.get(name.removeprefix("spacy-lsbillm."), dict)()


@pytest.mark.parametrize("key", NAMES, ids="-".join)
def test_what_is_registered_gives_what_can_be_pickled(make_base, tmp_path, key):
    group, name = key
    if group == "spacy_factories":
        config = {"model": {"name": str(make_base())}} if name == "billm_transformer" else {}
        made = spacy.blank("en").add_pipe(name, config=config)
        assert pickle.loads(pickle.dumps(made)).name == name
        return
    made = call(key, **arguments(name, make_base(), tmp_path))
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is type(made)


@pytest.mark.parametrize("head", [*MODELS, "span_finder,spancat"])
def test_what_init_config_offers_can_be_pickled(make_base, head):
    nlp = load_model_from_config(training_config(str(make_base()), pipeline=head.split(",")), auto_fill=True)
    again = pickle.loads(pickle.dumps(nlp))
    assert again.pipe_names == nlp.pipe_names
    assert again.config == nlp.config


@pytest.fixture(scope="module")
def trained(make_base):
    """A pipeline with our heads and spaCy's, whose last update left out some of them."""
    nlp = build(make_base(), heads=())
    labeler(nlp)
    textcat(nlp, "mean")
    nlp.get_pipe("textcat").scorer = call(("spacy_scorers", "spacy-lsbillm.textcat_scorer.v1"))
    nlp.add_pipe("tagger", config={"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": LISTENER}})
    data = corpus(nlp)
    for example in data:
        for token in example.reference:
            token.tag_ = "X" if token.is_alpha else "Y"
    fit(nlp, data)
    nlp.update(data, sgd=Adam(0.0001), exclude=["tagger"])
    return nlp


def said(doc):
    """Entities, their scores, and classes."""
    scores = [pytest.approx(score, abs=1e-5) for score in doc._.ent_scores]
    return found(doc), scores, {name: pytest.approx(value, abs=1e-5) for name, value in doc.cats.items()}


def test_components_can_be_pickled_after_an_update_that_left_some_out(trained):
    pipes = pickle.loads(pickle.dumps([pipe for _, pipe in trained.pipeline]))
    doc = trained.make_doc(TEXTS[0])
    for pipe in pipes:
        doc = pipe(doc)
    assert said(doc) == said(trained(TEXTS[0]))
    # Training continues.
    assert trained.update(corpus(trained), sgd=Adam(0.0001), losses={})["transformer"] > 0


@pytest.mark.slow
def test_processes_that_are_not_forked_give_the_same(trained, monkeypatch, fork_server):
    expected = [said(trained(text)) for text in TEXTS]
    # Forked from a server that has only imported modules; a spawned process would import them again.
    context = multiprocessing.get_context("forkserver")
    monkeypatch.setattr(spacy.language, "mp", context)
    assert [said(doc) for doc in trained.pipe(TEXTS, n_process=2, batch_size=2)] == expected


# Documents in other environments

SAY = "print([(ent.text, round(ent._.ent_score, 3)) for ent in doc.ents], doc._.ent_scores[1:], doc._.trf_data)"
PROGRAMS = {
    "unpickled": "import pickle; nlp = pickle.load(open('nlp.pickle', 'rb')); doc = nlp(text); doc._.trf_data = None",
    "blank": "import spacy; doc = next(DocBin().from_disk('docs.spacy').get_docs(spacy.blank('en').vocab))",
    "vocabulary": (
        "import spacy_lsbillm.pipeline; from spacy.vocab import Vocab; "
        "doc = next(DocBin().from_disk('docs.spacy').get_docs(Vocab()))"
    ),
}
# Each in a process without this package, forked from one that has done the slow imports.
ELSEWHERE = """
import os
import sys

import peft
from spacy.tokens import DocBin

assert not any(name.startswith("spacy_lsbillm") for name in sys.modules)
text, say, *programs = sys.argv[1:]
for program in programs:
    child = os.fork()
    if child == 0:
        exec(program)
        exec(say)
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_scores_are_known_wherever_documents_are_read(trained, tmp_path):
    doc = trained(TEXTS[0])
    doc._.trf_data = None
    DocBin(docs=[doc], store_user_data=True).to_disk(tmp_path / "docs.spacy")
    trained.to_disk(tmp_path / "pipeline")
    (tmp_path / "nlp.pickle").write_bytes(pickle.dumps(spacy.load(tmp_path / "pipeline")))
    command = [sys.executable, "-W", "ignore", "-c", ELSEWHERE, TEXTS[0], SAY, *PROGRAMS.values()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    entities = [(ent.text, round(ent._.ent_score, 3)) for ent in doc.ents]
    assert done.stdout.splitlines() == [f"{entities} [] None"] * len(PROGRAMS), done.stderr


def test_a_base_is_loaded_in_forked_processes():
    # With transformers 5, a third of the loads failed when several threads created a thread pool at once.
    settings = BaseSettings(name=str(BASE), attention="sdpa")
    load_causal_lm(BASE, settings, torch.device("cpu"))
    context = multiprocessing.get_context("fork")
    for _ in range(12):
        process = context.Process(target=load_causal_lm, args=(BASE, settings, torch.device("cpu")))
        process.start()
        process.join()
        assert process.exitcode == 0
