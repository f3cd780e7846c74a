"""A pre-training run, from plain text to a model in a Hugging Face folder."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..backbone.base import BaseSettings
from ..backbone.loading import load_base
from ..errors import SettingError
from ..files import as_os_error, new_folder, sole_writer
from ..language_model.score import score_text
from ..language_model.text import lowercased, read_documents, text_files
from .card import model_card
from .checkpoint import FILE as CHECKPOINT
from .checkpoint import Progress, load_checkpoint, save_checkpoint
from .loop import COLUMNS, HELD_OUT_BLOCKS, adamw, held_out_nats, run_steps
from .machine import arithmetic, hardware, versions
from .objectives import Objective, hidden_tokens, next_token, see_both_ways
from .places import check_prepared, claim, described, seal_prepared
from .settings import PretrainingSettings
from .tokens import TokenArray, take_tokenizer, token_dtype, train_tokenizer, write_tokens

RECORD = "pretraining.json"
# What the text is turned into, in the work folder. `files.sha256` lists these files.
TOKENIZER, TRAINING, HELD_OUT, TOKENS = "tokenizer", "training", "held-out", ".tokens"
# The key in config.json that distinguishes an encoder from a decoder.
OBJECTIVE_KEY = "pretraining_objective"


@dataclass(frozen=True)
class Places:
    """The files and folders of a run.

    text (Sequence[Path]), valid (Sequence[Path]): Files or folders to train on and to hold out.
    output (Path): The folder of the finished model; it must not exist, or be empty.
    work (Path): The folder of tokens and checkpoint.
    tokenizer (Path | None): The folder of a tokenizer to use instead of training one.
    """

    text: Sequence[Path]
    valid: Sequence[Path]
    output: Path
    work: Path
    tokenizer: Path | None = None


def pretrain(
    settings: PretrainingSettings, places: Places, device: torch.device, resume: bool = False
) -> dict[str, Any]:
    """Train a model and write it as a Hugging Face folder.

    resume (bool): Continue from the checkpoint in the work folder.
    RETURNS (dict): The record that is written beside the weights.
    RAISES (SettingError, StorageError, BaseError): Something does not fit; nothing was overwritten.
    """
    text, valid = text_files(places.text), text_files(places.valid)
    precision = arithmetic(settings.training.precision, device)
    if settings.steps < 1:
        raise SettingError(
            f"training.tokens = {settings.training.tokens} is fewer than one step of "
            f"{settings.training.batch * settings.model.positions} tokens."
        )
    with sole_writer(places.work):
        sources = _sources(text, valid, places.tokenizer)
        claim(places.output, places.work, {**settings.as_sections(), "sources": sources}, RECORD, resume)
        check_prepared(places.work)
        tokenizer = _tokenizer(settings, places, text)
        arrays = _arrays(settings, places.work, tokenizer, text, valid)
        tokenizer_files = [path for path in (places.work / TOKENIZER).rglob("*") if path.is_file()]
        seal_prepared(
            places.work, [*tokenizer_files, *(places.work / f"{name}{TOKENS}" for name in (TRAINING, HELD_OUT))]
        )
        model, progress = _train(settings, places.work, tokenizer, arrays, device, precision)
        return _finish(settings, places, tokenizer, model, progress, arrays[1], valid, device, precision)


def _sources(text: list[Path], valid: list[Path], tokenizer: Path | None) -> dict[str, Any]:
    """What a run reads, to distinguish it from a run on other text."""
    sources = {name: [described(path) for path in files] for name, files in (("text", text), ("valid", valid))}
    return sources | {"tokenizer": None if tokenizer is None else described(tokenizer / "tokenizer.json")}


def _tokenizer(settings: PretrainingSettings, places: Places, text: list[Path]) -> PreTrainedTokenizerFast:
    folder = places.work / TOKENIZER
    if folder.is_dir():
        return take_tokenizer(folder)
    if places.tokenizer is not None:
        tokenizer = take_tokenizer(places.tokenizer)
    else:
        documents = lowercased(read_documents(text), settings.training.lowercase_every)
        every = settings.tokenizer.every
        # Another offset than that of the lower-cased ones, so that neither kind is left out.
        sample = (document for i, document in enumerate(documents) if i % every == every // 2)
        tokenizer = train_tokenizer(sample, settings.tokenizer.vocab_size)
    tokenizer.model_max_length = settings.model.positions
    with new_folder(folder) as partial, as_os_error():
        tokenizer.save_pretrained(str(partial))
    # Load it as a resumed run would: a stored tokenizer differs in form from one that was just trained.
    return take_tokenizer(folder)


def _arrays(
    settings: PretrainingSettings, work: Path, tokenizer: PreTrainedTokenizerFast, text: list[Path], valid: list[Path]
) -> tuple[TokenArray, TokenArray]:
    arrays = []
    # Held-out text is scored as it is, without converting parts of it to lower case.
    for name, files, every in ((TRAINING, text, settings.training.lowercase_every), (HELD_OUT, valid, 0)):
        path = work / f"{name}{TOKENS}"
        if not path.exists():
            write_tokens(lowercased(read_documents(files), every), tokenizer, path, name)
        arrays.append(TokenArray(path, token_dtype(tokenizer), settings.model.positions, name))
    return arrays[0], arrays[1]


def build_model(settings: PretrainingSettings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Create a LLaMA-architecture model with random weights that depend on the seed.

    For "mlm" its causal mask is removed.
    """
    shape = settings.model
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **{OBJECTIVE_KEY: settings.training.objective},
    )
    torch.manual_seed(settings.training.seed)
    model = LlamaForCausalLM(config)
    if settings.training.objective == "mlm":
        see_both_ways(model)
    return model


def _train(
    settings: PretrainingSettings,
    work: Path,
    tokenizer: PreTrainedTokenizerFast,
    arrays: tuple[TokenArray, TokenArray],
    device: torch.device,
    precision: torch.dtype,
) -> tuple[LlamaForCausalLM, Progress]:
    train = settings.training
    model = build_model(settings, tokenizer).to(device)
    objective: Objective = next_token
    if train.objective == "mlm":
        objective = hidden_tokens(tokenizer.mask_token_id, train.mask_rate)
    optimizer = adamw(list(model.parameters()), train)
    progress = Progress()
    # This also finds what is not a file, which is then reported as an error.
    if os.path.lexists(work / CHECKPOINT):
        progress = load_checkpoint(work, settings.as_sections(), model.state_dict(), optimizer)
    progress.parts += 1
    run = torch.compile(objective) if train.compile else objective

    def loss_of(blocks: Tensor, seed: int) -> Tensor:
        with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
            return run(model, blocks.to(device, non_blocking=True), seed)

    run_steps(
        train,
        settings.steps,
        model,
        optimizer,
        progress,
        tokens_per_step=train.batch * settings.model.positions,
        batch=lambda step: arrays[0].batch(step, train.batch, train.seed),
        loss_of=loss_of,
        held_out=lambda: held_out_nats(loss_of, arrays[1], HELD_OUT_BLOCKS),
        save=lambda: save_checkpoint(work, settings.as_sections(), model.state_dict(), optimizer, progress),
    )
    return model, progress


def _finish(
    settings: PretrainingSettings,
    places: Places,
    tokenizer: PreTrainedTokenizerFast,
    model: LlamaForCausalLM,
    progress: Progress,
    array: TokenArray,
    valid: list[Path],
    device: torch.device,
    precision: torch.dtype,
) -> dict[str, Any]:
    """Write the model under a temporary name, score the stored weights, and rename the folder."""
    with new_folder(places.output) as partial:
        with as_os_error():
            model.to(torch.bfloat16).save_pretrained(str(partial))
            tokenizer.save_pretrained(str(partial))
        record = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "tokens_seen": progress.step * settings.training.batch * settings.model.positions,
            "seconds": round(progress.seconds),
            "parts": progress.parts,
            "hardware": hardware(device),
            "arithmetic": str(precision).removeprefix("torch."),
            "versions": versions(),
            "text": [path.name for path in text_files(places.text)],
            "valid": [path.name for path in valid],
            "held_out": _held_out(settings, partial, tokenizer, array, valid, device),
            "settings": settings.as_sections(),
            "curve_columns": COLUMNS,
            "curve": progress.curve,
        }
        (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")
        (partial / "README.md").write_text(model_card(places.output.name, record), encoding="utf8")
    return record


def _held_out(
    settings: PretrainingSettings,
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    array: TokenArray,
    valid: list[Path],
    device: torch.device,
) -> dict[str, float]:
    length = settings.model.positions
    stored = load_base(folder, BaseSettings(name=str(folder)), device)
    if settings.training.objective == "mlm":
        see_both_ways(stored)
        objective = hidden_tokens(tokenizer.mask_token_id, settings.training.mask_rate)
        return {"nats_per_hidden_token": held_out_nats(lambda part, i: objective(stored, part.to(device), i), array)}
    score = score_text(stored, tokenizer, valid, length=length, label="held-out text")
    random = build_model(settings, tokenizer).eval().to(device)
    score_random = score_text(random, tokenizer, valid, length=length, label="random weights")
    return {
        "nats_per_token": score.nats_per_token,
        "bits_per_byte": score.bits_per_byte,
        "random_weights_bits_per_byte": score_random.bits_per_byte,
    }
