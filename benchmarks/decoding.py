"""The cost of the `sequence_labeler` compared with the model that it listens to.

    python -m benchmarks.decoding

A batch of documents goes through the embedded base; the labeler then projects, normalises, decodes and writes the
spans. Its weights are random, so the best tags of nearly every document are ill-formed and the decoder has to search:
the worst case. Both parts are measured in turn.
"""

import argparse
import statistics
import time

import numpy as np
import spacy
from spacy.tokens import Doc
from spacy_transformers.pipeline_component import install_extensions

from .record import ROOT

WORDS = [
    "book",
    "a",
    "table",
    "for",
    "two",
    "at",
    "an",
    "italian",
    "place",
    "in",
    "boston",
    "tomorrow",
    "night",
    "please",
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding", description=__doc__)
    parser.add_argument("--documents", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=50, help="tokens per document")
    parser.add_argument("--labels", type=int, default=40)
    parser.add_argument("--scheme", choices=["biluo", "iob2"], default="biluo")
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    install_extensions()
    nlp = spacy.blank("en")
    base = {"@architectures": "spacy-lsbillm.BiLLMModel.v1", "name": str(ROOT / "assets" / "base")}
    transformer = nlp.add_pipe("billm_transformer", name="transformer", config={"model": base})
    labeler = nlp.add_pipe("sequence_labeler", config={"scheme": args.scheme})
    for i in range(args.labels):
        labeler.add_label(f"label{i}")
    transformer.initialize(list, nlp=nlp)
    output = labeler.model.get_ref("output_layer")
    output.set_dim("nI", transformer.model.get_dim("nO"))
    output.set_dim("nO", labeler.scheme.n_tags)
    output.initialize()
    rng = np.random.default_rng(0)
    output.set_param("W", rng.normal(size=output.get_param("W").shape).astype("f"))
    texts = [[WORDS[j] for j in rng.integers(len(WORDS), size=args.tokens)] for _ in range(args.documents)]
    forward, labelling, spans = [], [], 0
    for _ in range(args.runs):
        docs = [Doc(nlp.vocab, words=words) for words in texts]
        begun = time.perf_counter()
        transformer.set_annotations(docs, transformer.predict(docs))
        half = time.perf_counter()
        labeler.set_annotations(docs, labeler.predict(docs))
        forward.append(half - begun)
        labelling.append(time.perf_counter() - half)
        spans = sum(len(doc.ents) for doc in docs)
    ratios = [one / other for one, other in zip(labelling, forward, strict=True)]
    print(
        f"{args.documents} documents of {args.tokens} tokens, {args.labels} labels, {args.scheme}, {spans} spans\n"
        f"transformer: {statistics.median(forward):.3f} s\n"
        f"labeler:     {statistics.median(labelling):.3f} s in total\n"
        f"ratio:       {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()
