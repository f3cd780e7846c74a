"""Training: words per second of optimizer steps in `spacy train` and in transformers' `Trainer`."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.training.batchers import minibatch_by_words
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

from spacy_lsbillm.layers import backbone_shim

from .bases import Merged, Precision
from .corpora import Corpus
from .limit import best_blocks, blocks, run_training
from .pipelines import ours
from .prediction import HEAD, LABELS, LIMIT, all_pieces, plain_decoder
from .turns import Contestant

OURS, TRAINER = "this project, batches of the same words", "Trainer, batches of"
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}


def training(
    base: Path, merged: Merged, corpus: Corpus, precision: Precision, batch: int, beside: Sequence[str]
) -> dict[str, Contestant]:
    """Training steps over a corpus; a run is one epoch.

    batch (int): The number of texts per step of the `Trainer`.
    beside (Sequence[str]): Contains "trainer" if that is measured.
    """
    nlp = ours(base, ["sequence_labeler"], precision)
    device = backbone_shim(nlp.get_pipe("transformer").model).backbone.device
    rows = tokenised(merged, corpus)
    steps = -(-len(rows) // batch)
    contestants = {
        LIMIT: limit(merged, corpus, precision, device),
        OURS: spacy_steps(nlp, corpus, corpus.words / steps),
    }
    if "trainer" in beside:
        contestants[f"{TRAINER} {batch}"] = trainer_steps(merged, rows, precision, batch, device)
    return contestants


def spacy_steps(nlp: Language, corpus: Corpus, words: float) -> Contestant:
    """The work of `spacy train` for each batch: `nlp.update` with the optimizer, and its schedules.

    words (float): The number of words per batch.
    """
    optimizer: Any = nlp.resume_training(sgd=nlp.create_optimizer())

    def prepare() -> list[list[Example]]:
        docs = [nlp.make_doc(text) for text in corpus.texts]
        return list(
            minibatch_by_words([Example(doc, annotated(doc)) for doc in docs], size=round(words), tolerance=0.2)
        )

    def run(batches: list[list[Example]]) -> None:
        for batch in batches:
            nlp.update(batch, sgd=optimizer, drop=0.1, losses={})
            optimizer.step_schedules()

    return Contestant(run, prepare)


def annotated(doc: Doc) -> Doc:
    """A copy without entities, which is also an annotation."""
    copied = Doc(doc.vocab, words=[token.text for token in doc], spaces=[bool(token.whitespace_) for token in doc])
    copied.set_ents([], default="outside")
    return copied


def tokenised(merged: Merged, corpus: Corpus) -> list[dict[str, list[int]]]:
    """Texts as a token classification script prepares them.

    They are cut if they are too long for the model, and have one label per piece.
    """
    tokenizer = AutoTokenizer.from_pretrained(merged.folder)
    most = min(512, AutoConfig.from_pretrained(merged.folder).max_position_embeddings)
    encoded = tokenizer(
        corpus.texts, truncation=True, max_length=most, return_overflowing_tokens=True, return_token_type_ids=False
    )
    return [{"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [0] * len(ids)} for ids in encoded.input_ids]


def trainer_steps(
    merged: Merged, rows: list[dict[str, list[int]]], precision: Precision, batch: int, device: torch.device
) -> Contestant:
    """An epoch of transformers' `Trainer` with peft over the rows, with batches padded to the longest row."""
    tokenizer = AutoTokenizer.from_pretrained(merged.folder)
    plain = AutoModelForTokenClassification.from_pretrained(
        merged.folder, num_labels=LABELS, **precision.options(device, [HEAD])
    )
    model = get_peft_model(plain, LoraConfig(task_type=TaskType.TOKEN_CLS, exclude_modules=[HEAD], **LORA))
    folder = tempfile.mkdtemp()
    options: dict[str, Any] = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no"}
    arguments = TrainingArguments(
        folder,
        per_device_train_batch_size=batch,
        num_train_epochs=1,
        learning_rate=2e-4,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
        **options,
    )

    def prepare() -> Trainer:
        collator = DataCollatorForTokenClassification(tokenizer)
        return Trainer(model, arguments, train_dataset=rows, data_collator=collator)

    return Contestant(lambda trainer: trainer.train(), prepare)


def limit(merged: Merged, corpus: Corpus, precision: Precision, device: torch.device) -> Contestant:
    """The forward and backward passes alone, with the same adapter."""
    decoder, longest = plain_decoder(merged, precision, device)
    decoder.requires_grad_(False)
    adapted: Any = get_peft_model(decoder, LoraConfig(**LORA)).base_model.model
    adapted.train()
    pieces: Tensor = all_pieces(merged, corpus).to(device)
    parts = blocks(pieces, *best_blocks(adapted, pieces, longest, run_training))

    def run(_: Any) -> None:
        run_training(adapted, parts)
        adapted.zero_grad()

    return Contestant(run)
