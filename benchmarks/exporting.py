"""How often an exported labeler predicts the tags of its pipeline.

    python -m benchmarks.exporting PIPELINE DOCS.spacy [DOCS.spacy …] --limit 1000    # four core-minutes

PIPELINE has a `sequence_labeler`. Its scheme should be iob2, otherwise the way in which transformers joins pieces makes
no sense. The pipeline is exported, and three readings of the folder are compared with the best tag of each token in the
pipeline, without its Viterbi step: the mean of the logits of a token's pieces, the mean of their probabilities as
transformers' `pipeline` joins them (`aggregation_strategy = "average"`), and its first piece ("first"). `pipeline`
returns tags without their kind, so there B-city and I-city both count as city. Needs transformers 5.2 or newer.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from tqdm import tqdm
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

from spacy_lsbillm.alignment import align, cut_pieces
from spacy_lsbillm.exporting import export
from spacy_lsbillm.exporting.trial import of_tokens
from spacy_lsbillm.files import TemporaryFolder
from spacy_lsbillm.layers import backbone_shim

from .record import ROOT, circumstances, write_result

RESULT = ROOT / "benchmarks" / "results" / "exporting.json"
STRATEGIES = ("average", "first")


def pipeline_scores(nlp: Language, docs: list[Doc], component: str) -> list[np.ndarray]:
    """The scores of the tags in the pipeline, one array per document, of shape (tokens, tags)."""
    nlp.get_pipe("transformer").set_annotations(docs, nlp.get_pipe("transformer").predict(docs))
    return nlp.get_pipe(component).model.predict(docs)


def exported_scores(nlp: Language, folder: Path, docs: list[Doc]) -> list[np.ndarray]:
    """The same scores from the exported model, as mean logits of pieces. Rows of tokens without pieces are zero."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    shim = backbone_shim(nlp.get_pipe("transformer").model)
    get_spans = nlp.get_pipe("transformer").model.attrs["cutting"].get_spans
    found = []
    for doc in tqdm(docs, desc="logits"):
        with torch.inference_mode():
            logits = model(**tokenizer(doc.text, return_tensors="pt")).logits[0].numpy()
        of_piece, counts = align([doc], cut_pieces(tokenizer, [doc], get_spans, shim.white_space))
        places = np.split(of_piece + len(shim.special.prefix), np.cumsum(counts)[:-1])
        scores = np.zeros((len(doc), logits.shape[1]), dtype="f")
        scores[counts > 0] = of_tokens(logits, [place for place in places if len(place)], "mean")
        found.append(scores)
    return found


def transformers_labels(folder: Path, docs: list[Doc], strategy: str) -> list[list[str]]:
    """The label of each token from transformers' pipeline: that of the group with its first character, "O" for none."""
    tagger = pipeline("token-classification", model=str(folder), aggregation_strategy=strategy, ignore_labels=[])
    found = []
    for doc in tqdm(docs, desc=strategy):
        labels = ["O"] * len(doc)
        for group in tagger(doc.text):
            for token in doc:
                # Groups begin with the space before their first word.
                if group["start"] <= token.idx < group["end"]:
                    labels[token.i] = group["entity_group"]
        found.append(labels)
    return found


def agreement(one: list[list[str]], other: list[list[str]]) -> dict[str, Any]:
    """The shares of tokens, of tokens with a label on either side, and of whole documents that agree."""
    pairs = [pair for a, b in zip(one, other, strict=True) for pair in zip(a, b, strict=True)]
    labelled = [pair for pair in pairs if set(pair) != {"O"}]
    return {
        "tokens": sum(a == b for a, b in pairs) / len(pairs),
        "labelled_tokens": sum(a == b for a, b in labelled) / len(labelled),
        "documents": sum(a == b for a, b in zip(one, other, strict=True)) / len(one),
        "differing_tokens": sum(a != b for a, b in pairs),
    }


def main() -> None:
    """Export, compare and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("docs", type=Path, nargs="+")
    parser.add_argument("--component", default="sequence_labeler")
    parser.add_argument("--limit", type=int, default=1000)
    arguments = parser.parse_args()
    nlp = spacy.load(arguments.pipeline)
    gold = [doc for path in arguments.docs for doc in DocBin().from_disk(path).get_docs(nlp.vocab)][: arguments.limit]
    docs = [Doc(nlp.vocab, [token.text for token in doc], [bool(token.whitespace_) for token in doc]) for doc in gold]
    tags = nlp.get_pipe(arguments.component).scheme.tags
    expected = pipeline_scores(nlp, docs, arguments.component)
    best = [[tags[number] for number in scores.argmax(axis=1)] for scores in expected]
    plain = [[tag.partition("-")[2] or tag for tag in row] for row in best]
    with TemporaryFolder() as root:
        export(arguments.pipeline, root / "exported", arguments.component)
        scores = exported_scores(nlp, root / "exported", docs)
        largest = max(float(np.abs(a - b).max()) for a, b in zip(scores, expected, strict=True))
        readings = {"mean of logits": agreement([[tags[n] for n in s.argmax(axis=1)] for s in scores], best)}
        for strategy in STRATEGIES:
            found = transformers_labels(root / "exported", docs, strategy)
            readings[f"pipeline, {strategy}"] = agreement(found, plain)
    result = {
        **circumstances(),
        "documents": len(docs),
        "tokens": sum(map(len, docs)),
        "corpora": [path.name for path in arguments.docs],
        "scheme": nlp.get_pipe(arguments.component).scheme.name,
        "dev_f1": nlp.meta.get("performance", {}).get("ents_f"),
        "largest_difference_of_logits": largest,
        "agreement": readings,
    }
    write_result(RESULT, result)
    for name, shares in readings.items():
        print(f"{name:20}", "  ".join(f"{key} {value:.4f}" for key, value in shares.items()))


if __name__ == "__main__":
    main()
