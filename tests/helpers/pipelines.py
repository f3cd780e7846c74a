"""Small pipelines over tiny bases, and common operations on them."""

import numpy as np
import spacy
from spacy.training import Example
from spacy.util import fix_random_seed
from thinc.api import Adam
from tiny import TEXTS

LISTENER = {
    "@architectures": "spacy-transformers.TransformerListener.v1",
    "pooling": {"@layers": "reduce_mean.v1"},
}
# A layer of token vectors for heads that need no transformer.
CNN = {
    "@architectures": "spacy.HashEmbedCNN.v2",
    "pretrained_vectors": None,
    "width": 16,
    "depth": 1,
    "embed_size": 200,
    "window_size": 1,
    "maxout_pieces": 2,
    "subword_features": True,
}
NER = {
    "@architectures": "spacy.TransitionBasedParser.v2",
    "state_type": "ner",
    "extra_state_tokens": False,
    "hidden_width": 16,
    "maxout_pieces": 2,
    "use_upper": False,
    "tok2vec": LISTENER,
}
TEXTCAT = {
    "@architectures": "spacy.TextCatReduce.v1",
    "exclusive_classes": True,
    "use_reduce_first": False,
    "use_reduce_last": False,
    "use_reduce_max": False,
    "use_reduce_mean": True,
    "tok2vec": LISTENER,
}
GOLD = [
    ([(44, 50, "city")], "book"),
    ([(18, 29, "artist")], "play"),
    ([(16, 21, "city")], "weather"),
    ([(36, 48, "playlist")], "play"),
]


def build(folder, heads=("ner", "textcat"), **model):
    # Not English: loading the thousands of exceptions of its tokenizer takes longer than the rest of a small pipeline.
    nlp = spacy.blank("xx")
    settings = {"@architectures": "spacy-lsbillm.BiLLMModel.v1", "name": str(folder), **model}
    nlp.add_pipe("billm_transformer", name="transformer", config={"model": settings})
    for head in heads:
        nlp.add_pipe(head, config={"model": {"ner": NER, "textcat": TEXTCAT}[head]})
    return nlp


def examples(nlp):
    labels = sorted({intent for _, intent in GOLD})
    return [
        Example.from_dict(nlp.make_doc(text), {"entities": spans, "cats": {x: float(x == intent) for x in labels}})
        for text, (spans, intent) in zip(TEXTS, GOLD, strict=True)
    ]


def train(nlp, steps=3, optimizer=None):
    data = examples(nlp)
    nlp.initialize(lambda: data)
    optimizer = optimizer or Adam(0.002)
    for _ in range(steps):
        losses = nlp.update(data, sgd=optimizer, losses={})
    return losses


def trained(folder, steps=3, **model):
    fix_random_seed(0)
    nlp = build(folder, **model)
    train(nlp, steps)
    return nlp


def vectors(nlp, texts=TEXTS):
    return [doc._.trf_data.model_output.last_hidden_state[0] for doc in nlp.pipe(texts)]


def backbone(nlp):
    return nlp.get_pipe("transformer").model.shims[0].backbone


def same(one, other, tolerance=1e-5):
    return all(np.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(one, other, strict=True))
