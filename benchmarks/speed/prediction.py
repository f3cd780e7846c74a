"""Prediction: words a second of the transformer alone and of whole pipelines."""

from collections.abc import Iterator
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

from .bases import Merged
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


def transformer_alone(nlp: Language, merged: Merged, corpus: Corpus, dtype: str) -> dict[str, Contestant]:
    """The component over documents that are tokenised by spaCy already, and what there is beside it.

    nlp (Language): Ours, with the transformer alone.
    """
    device = backbone_shim(nlp.get_pipe("transformer").model).backbone.device
    return {
        LIMIT: limit(merged, corpus, getattr(torch, dtype), device),
        OURS: component(nlp, corpus),
        STOCK: component(spacy_transformers(merged.folder, []), corpus),
        LOOP: padded_loop(merged, corpus, getattr(torch, dtype), device),
    }


def whole_pipelines(base: Path, merged: Merged, corpus: Corpus, dtype: str) -> dict[str, Contestant]:
    """From texts to annotated documents."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        LIMIT: limit(merged, corpus, getattr(torch, dtype), device),
        HEADS: pipeline(ours(base, ["sequence_labeler", "textcat"], dtype, pooling="mean"), corpus),
        SPACY_HEADS: pipeline(ours(base, ["ner", "textcat"], dtype), corpus),
        STOCK_HEADS: pipeline(spacy_transformers(merged.folder, ["ner", "textcat"]), corpus),
    }


def component(nlp: Language, corpus: Corpus) -> Contestant:
    """A pipeline over `Doc`s."""

    def prepare() -> list[Doc]:
        return [nlp.make_doc(text) for text in corpus.texts]

    return Contestant(lambda docs: list(nlp.pipe(docs)), prepare)


def pipeline(nlp: Language, corpus: Corpus) -> Contestant:
    """A pipeline over texts."""
    return Contestant(lambda _: list(nlp.pipe(corpus.texts)))


def padded_loop(merged: Merged, corpus: Corpus, dtype: torch.dtype, device: torch.device) -> Contestant:
    """Token classification as it is usually written: batches of 32 in order, padded to the longest, long texts cut into
    parts that the model can take, without overlap."""
    tokenizer = AutoTokenizer.from_pretrained(merged.folder)
    model: Any = AutoModelForTokenClassification.from_pretrained(
        merged.folder, num_labels=LABELS, torch_dtype=dtype
    ).to(device)
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


def limit(merged: Merged, corpus: Corpus, dtype: torch.dtype, device: torch.device) -> Contestant:
    """See `limit`."""
    decoder, longest = plain_decoder(merged, dtype, device)
    pieces = all_pieces(merged, corpus).to(device)
    length, items = best_blocks(decoder, pieces, longest, run_forward)
    parts = blocks(pieces, length, items)
    return Contestant(lambda _: run_forward(decoder, parts))


def plain_decoder(merged: Merged, dtype: torch.dtype, device: torch.device) -> tuple[Any, int]:
    """The decoder of the plain model, causal, and how many positions it was made for."""
    model = AutoModelForCausalLM.from_pretrained(merged.folder, torch_dtype=dtype).to(device).eval()
    decoder = decoder_of(model, family_of(model.config, str(merged.folder)))
    return decoder, model.config.max_position_embeddings


def all_pieces(merged: Merged, corpus: Corpus) -> torch.Tensor:
    """The pieces of all texts in one row, without special ones."""
    tokenizer = AutoTokenizer.from_pretrained(merged.folder)
    encoded = tokenizer(corpus.texts, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([piece for ids in encoded for piece in ids])
