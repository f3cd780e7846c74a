"""Prediction: words per second of the transformer alone and of whole pipelines."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import minibatch
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer

from spacy_lsbillm.backbone.families import decoder_of
from spacy_lsbillm.backbone.proved import family_of
from spacy_lsbillm.layers import backbone_shim

from .bases import Merged, Precision
from .corpora import Corpus
from .limit import best_blocks, blocks, run_forward
from .pipelines import ours, spacy_transformers
from .turns import Contestant

LIMIT, OURS, STOCK, LOOP = "the limit", "this project", "spacy-transformers", "padded loop"
HEADS, SPACY_HEADS, STOCK_HEADS = (
    "this project, sequence_labeler and PooledTextCat",
    "this project, ner and textcat",
    "spacy-transformers, ner and textcat",
)
LOOP_BATCH = 32
LABELS = 40
# The name of the head of token classification in transformers.
HEAD = "score"


def transformer_alone(
    nlp: Language, merged: Merged, corpus: Corpus, precision: Precision, beside: Sequence[str]
) -> dict[str, Contestant]:
    """The transformer over documents that spaCy has already tokenised, and its alternatives.

    nlp (Language): Our pipeline with only the transformer.
    beside (Sequence[str]): The alternatives to measure: "stock", "loop".
    """
    device = backbone_shim(nlp.get_pipe("transformer").model).backbone.device
    contestants = {LIMIT: limit(merged, corpus, precision, device), OURS: component(nlp, corpus)}
    if "stock" in beside:
        contestants[STOCK] = component(spacy_transformers(merged.folder, []), corpus)
    if "loop" in beside:
        contestants[LOOP] = padded_loop(merged, corpus, precision, device)
    return contestants


def whole_pipelines(
    base: Path, merged: Merged, corpus: Corpus, precision: Precision, beside: Sequence[str]
) -> dict[str, Contestant]:
    """Whole pipelines, from texts to annotated documents."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    contestants = {
        LIMIT: limit(merged, corpus, precision, device),
        HEADS: pipeline(ours(base, ["sequence_labeler", "textcat"], precision, pooling="mean"), corpus),
        SPACY_HEADS: pipeline(ours(base, ["ner", "textcat"], precision), corpus),
    }
    if "stock" in beside:
        contestants[STOCK_HEADS] = pipeline(spacy_transformers(merged.folder, ["ner", "textcat"]), corpus)
    return contestants


def component(nlp: Language, corpus: Corpus) -> Contestant:
    """A contestant that runs a pipeline over `Doc` objects."""

    def prepare() -> list[Doc]:
        return [nlp.make_doc(text) for text in corpus.texts]

    return Contestant(lambda docs: list(nlp.pipe(docs)), prepare)


def pipeline(nlp: Language, corpus: Corpus) -> Contestant:
    """A contestant that runs a pipeline over texts."""
    return Contestant(lambda _: list(nlp.pipe(corpus.texts)))


def padded_loop(merged: Merged, corpus: Corpus, precision: Precision, device: torch.device) -> Contestant:
    """Token classification as it is usually written.

    Batches of 32 in order are padded to the longest text, and long texts are cut into parts that the model can take,
    without overlap.
    """
    tokenizer = AutoTokenizer.from_pretrained(merged.folder)
    model: Any = AutoModelForTokenClassification.from_pretrained(
        merged.folder, num_labels=LABELS, **precision.options(device, [HEAD])
    )
    model.eval()
    most = min(512, model.config.max_position_embeddings)

    def run(_: Any) -> list[Any]:
        return [row for batch in minibatch(corpus.texts, LOOP_BATCH) for row in labelled(batch)]

    def labelled(batch: list[str]) -> Iterator[Any]:
        inputs = tokenizer(
            batch,
            padding=True,
            truncation=True,
            max_length=most,
            return_overflowing_tokens=True,
            return_token_type_ids=False,
            return_tensors="pt",
        ).to(device)
        inputs.pop("overflow_to_sample_mapping")
        with torch.no_grad():
            yield from model(**inputs).logits.argmax(-1).cpu().numpy()

    return Contestant(run)


def limit(merged: Merged, corpus: Corpus, precision: Precision, device: torch.device) -> Contestant:
    """The forward pass of the decoder alone, see `benchmarks.speed.limit`."""
    decoder, longest = plain_decoder(merged, precision, device)
    pieces = all_pieces(merged, corpus).to(device)
    length, items = best_blocks(decoder, pieces, longest, run_forward)
    parts = blocks(pieces, length, items)
    return Contestant(lambda _: run_forward(decoder, parts))


def plain_decoder(merged: Merged, precision: Precision, device: torch.device) -> tuple[Any, int]:
    """The decoder of the plain model, causal, and the number of positions it was made for."""
    model = AutoModelForCausalLM.from_pretrained(merged.folder, **precision.options(device)).eval()
    decoder = decoder_of(model, family_of(model.config, str(merged.folder)))
    return decoder, model.config.max_position_embeddings


def all_pieces(merged: Merged, corpus: Corpus) -> torch.Tensor:
    """The pieces of all texts in one row, without special pieces."""
    tokenizer = AutoTokenizer.from_pretrained(merged.folder)
    encoded = tokenizer(corpus.texts, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([piece for ids in encoded for piece in ids])
