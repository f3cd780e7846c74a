"""Small bases of several kinds, the same as in the tests, and pipelines over them."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import spacy
from spacy.language import Language
from spacy.util import fix_random_seed

from ..record import ROOT

# The tests' helpers make small models and tokenizers of all kinds.
if str(ROOT / "tests" / "helpers") not in sys.path:
    sys.path.append(str(ROOT / "tests" / "helpers"))
from tiny import TEXTS, make_model
from tokenizers_of_all_kinds import REAL_FOLDER, tokenizer_of

__all__ = ["EMBEDDED", "LABELS", "LISTENER", "TEXTS", "is_real", "make_pipeline", "write_base"]
EMBEDDED = ROOT / "assets" / "base"
LISTENER = {
    "@architectures": "spacy-transformers.TransformerListener.v1",
    "pooling": {"@layers": "reduce_mean.v1"},
}
LABELS = ["CITY", "DATE", "SONG"]


def write_base(folder: Path, kind: str, seed: int = 0, **config: Any) -> Path:
    """Write a tiny LLaMA with random weights and a tokenizer.

    kind (str): The kind of tokenizer, as named in `tests/helpers/tokenizers_of_all_kinds.py`.
    seed (int): The seed of the weights.
    config (Any): Changes to config.json.
    RETURNS (Path): The folder.
    """
    tokenizer = tokenizer_of(kind)
    shape = {"num_hidden_layers": 2, "max_position_embeddings": 512, **config}
    make_model("llama", seed, len(tokenizer), **shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def is_real(name: str) -> bool:
    """Whether the tokenizer of a real model is available beside the checkout."""
    return (REAL_FOLDER / name / "tokenizer.json").is_file()


def make_pipeline(base: Path, heads: bool = True, **model: Any) -> Language:
    """An untrained pipeline over a base.

    Its heads have random weights, so that they find something anywhere: `sequence_labeler` writes entities, `spans` a
    span group, `textcat` categories.

    model (Any): Settings of the transformer's model.
    """
    fix_random_seed(0)
    nlp = spacy.blank("xx")
    nlp.max_length = 10_000_000
    settings = {"@architectures": "spacy-lsbillm.BiLLMModel.v1", "name": str(base), **model}
    nlp.add_pipe("billm_transformer", name="transformer", config={"model": settings})
    if heads:
        layer = {"@architectures": "spacy-lsbillm.SequenceLabeler.v1", "tok2vec": LISTENER}
        entities = nlp.add_pipe("sequence_labeler", config={"model": layer})
        spans = nlp.add_pipe(
            "sequence_labeler", name="spans", config={"model": layer, "scheme": "iob2", "spans_key": "sc"}
        )
        pooled = {"@architectures": "spacy-lsbillm.PooledTextCat.v1", "exclusive_classes": True, "tok2vec": LISTENER}
        textcat = nlp.add_pipe("textcat", config={"model": pooled})
        for label in LABELS:
            for pipe in (entities, spans, textcat):
                pipe.add_label(label)
    nlp.initialize()
    random = np.random.default_rng(0)
    for name in ("sequence_labeler", "spans", "textcat") if heads else ():
        for node in nlp.get_pipe(name).model.walk():
            for parameter in node.param_names:
                if node.has_param(parameter):
                    shape = node.get_param(parameter).shape
                    node.set_param(parameter, random.normal(0, 0.3, shape).astype("float32"))
    return nlp
