"""The label-supervised heads in small pipelines, a corpus for them, and their predictions."""

from pipelines import GOLD, LISTENER
from spacy.training import Example
from spacy.util import fix_random_seed
from thinc.api import Adam
from tiny import TEXTS

CNN = {
    "@architectures": "spacy.HashEmbedCNN.v2",
    "pretrained_vectors": None,
    "width": 32,
    "depth": 2,
    "embed_size": 300,
    "window_size": 1,
    "maxout_pieces": 2,
    "subword_features": True,
}


def labeler(nlp, name="sequence_labeler", tok2vec=LISTENER, **config):
    model = {"@architectures": "spacy-lsbillm.SequenceLabeler.v1", "tok2vec": tok2vec}
    return nlp.add_pipe("sequence_labeler", name=name, config={"model": model, **config})


def corpus(nlp, spans_key=None):
    made = []
    for text, (spans, intent) in zip(TEXTS, GOLD, strict=True):
        reference = nlp.make_doc(text)
        found = [reference.char_span(start, end, label=label) for start, end, label in spans]
        if spans_key is None:
            reference.set_ents(found)
        else:
            reference.spans[spans_key] = found
        reference.cats = {name: float(name == intent) for name in ("book", "play", "weather")}
        made.append(Example(nlp.make_doc(text), reference))
    return made


def fit(nlp, data, steps=80, rate=0.005):
    fix_random_seed(0)
    nlp.initialize(lambda: data)
    optimizer = Adam(rate)
    for _ in range(steps):
        losses = nlp.update(data, sgd=optimizer, losses={})
    return losses


def textcat(nlp, pooling, exclusive=True, tok2vec=LISTENER):
    factory = "textcat" if exclusive else "textcat_multilabel"
    model = {
        "@architectures": "spacy-lsbillm.PooledTextCat.v1",
        "pooling": pooling,
        "exclusive_classes": exclusive,
        "tok2vec": tok2vec,
    }
    return nlp.add_pipe(factory, name="textcat", config={"model": model})


def found(doc):
    return [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]
