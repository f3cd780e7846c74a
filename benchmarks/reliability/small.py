"""A base of a few thousand parameters with random weights, and pipelines over it, so that cases are fast."""

import sys
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.training import Example

from ..record import ROOT

# The same small model as in the tests.
if str(ROOT / "tests" / "helpers") not in sys.path:
    sys.path.append(str(ROOT / "tests" / "helpers"))
from tiny import LAYERS, SHAPE, TEXTS, make_model, make_tokenizer

__all__ = ["CLASSES", "LAYERS", "LISTENER", "POSITIONS", "SPANS", "TEXTS", "examples", "make_base", "make_pipeline"]
SPANS = ([(44, 50, "city")], [(18, 29, "artist")], [(16, 21, "city")], [(36, 48, "playlist")])
CLASSES = ("book", "play", "weather", "play")
LISTENER = {"@architectures": "spacy-transformers.TransformerListener.v1", "pooling": {"@layers": "reduce_mean.v1"}}
POSITIONS = SHAPE["max_position_embeddings"]


def make_base(folder: Path, seed: int = 0) -> Path:
    """Write a LLaMA of four layers with random weights.

    Its byte-level tokenizer names a start token but does not put it before texts.
    """
    tokenizer = make_tokenizer(start=False)
    make_model("llama", seed, len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_pipeline(base: Path, heads: tuple[str, ...] = ("sequence_labeler", "textcat"), **model: Any) -> Language:
    """A pipeline that is not initialised.

    heads (tuple): `sequence_labeler` and `textcat`, or one of them.
    model (Any): Settings of the transformer's model.
    """
    nlp = spacy.blank("en")
    settings = {"@architectures": "spacy-lsbillm.BiLLMModel.v1", "name": str(base), **model}
    nlp.add_pipe("billm_transformer", name="transformer", config={"model": settings})
    of_head: dict[str, dict[str, Any]] = {
        "sequence_labeler": {"tok2vec": LISTENER},
        "textcat": {
            "@architectures": "spacy-lsbillm.PooledTextCat.v1",
            "exclusive_classes": True,
            "tok2vec": LISTENER,
        },
    }
    for head in heads:
        nlp.add_pipe(head, config={"model": of_head[head]})
    return nlp


def examples(nlp: Language) -> list[Example]:
    """A few sentences with entities and classes."""
    return [
        Example.from_dict(
            nlp.make_doc(text), {"entities": spans, "cats": {name: float(name == chosen) for name in set(CLASSES)}}
        )
        for text, spans, chosen in zip(TEXTS, SPANS, CLASSES, strict=True)
    ]


def train_pipeline(base: Path, steps: int = 3, **model: Any) -> Language:
    """A pipeline after a few training steps."""
    nlp = make_pipeline(base, **model)
    data = examples(nlp)
    optimizer = nlp.initialize(lambda: data)
    optimizer.learn_rate = 0.01
    for _ in range(steps):
        nlp.update(data, sgd=optimizer)
    return nlp
