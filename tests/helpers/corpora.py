"""A small corpus on disk, settings for a quick training on it, and a way to run spaCy's commands in this process."""

from pathlib import Path

import spacy.cli  # registers the commands of spaCy, as spacy_lsbillm.cli does ours
from pipelines import examples
from spacy.cli._util import app
from spacy.tokens import Doc, DocBin
from typer.testing import CliRunner

import spacy_lsbillm.cli  # noqa: F401
from spacy_lsbillm.training.config import training_config


def make_docs() -> list[Doc]:
    """Four documents with entities, the same as spans, categories, tags, morphology and a parse.

    Each is a question whose choices are its categories.
    """
    docs = [example.reference for example in examples(spacy.blank("xx"))]
    for number, doc in enumerate(docs):
        doc.user_data["question"] = number
        doc.spans["sc"] = list(doc.ents)
        for token in doc:
            token.tag_ = token.pos_ = "NOUN" if token.is_alpha else "PUNCT"
            token.set_morph("Number=Sing")
            # Left and right arcs, because the parser has no gold transitions if one kind never occurs.
            left = token.i % 2 and token.i + 1 < len(doc)
            token.head = doc[token.i + 1] if left else doc[0]
            token.dep_ = "left" if left else "right" if token.i else "ROOT"
    return docs


def write_corpus(path: Path, copies: int = 4) -> Path:
    DocBin(docs=make_docs() * copies, store_user_data=True).to_disk(path)
    return path


def quick(corpus, base, steps=40, **more):
    """Settings with which a config trains on `corpus` over `base` in seconds."""
    return {
        "paths.train": str(corpus),
        "paths.dev": str(corpus),
        "components.transformer.model.name": str(base),
        "training.max_steps": steps,
        "training.max_epochs": 0,
        "training.eval_frequency": 20,
        "training.batcher.size": 100,
        "training.optimizer.learn_rate.warmup_steps": 2,
        **more,
    }


def write_config(path: Path, corpus, base, pipeline=("ner", "textcat"), size=100, lang="xx", **model) -> Path:
    """Write a complete config for a quick training, with `words` words per batch."""
    paths = {"train": str(corpus), "dev": str(corpus)}
    # English only on request, see `pipelines.build`.
    config = training_config(str(base), lang=lang, pipeline=pipeline, **paths, **model)
    training = config["training"]
    training["max_steps"], training["eval_frequency"], training["batcher"]["size"] = 20, 10, size
    training["optimizer"]["learn_rate"]["warmup_steps"] = 2
    config.to_disk(path, interpolate=False)
    return path


def run(*arguments, code=0):
    """Run `python -m spacy ...` in this process and return its output. Fails if the exit status is not `code`."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output
