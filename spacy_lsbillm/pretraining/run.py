"""A pre-training run: text to tokens, tokens to a model, and at any moment a checkpoint to go on from."""

import json
import math
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..about import __version__
from ..backbone.base import BaseSettings, load_causal_lm
from ..errors import SettingError, StorageError
from .card import model_card
from .checkpoint import FILE as CHECKPOINT
from .checkpoint import Progress, check_settings, load_checkpoint, save_checkpoint
from .objectives import Objective, hidden_tokens, next_token, see_both_ways
from .score import score_text
from .settings import PretrainingSettings, TrainingSettings
from .text import lowercased, read_documents, text_files
from .tokens import TokenArray, take_tokenizer, token_dtype, train_tokenizer, write_tokens

RECORD = "pretraining.json"
COLUMNS = ("step", "tokens", "loss", "held_out_nats", "seconds")
# Blocks that are scored at each checkpoint. The number that counts is that of the whole held-out text, at the end.
HELD_OUT_BLOCKS = 256
# The key in config.json that tells an encoder from a decoder.
OBJECTIVE_KEY = "pretraining_objective"


@dataclass(frozen=True)
class Places:
    """text (Sequence[Path]), valid (Sequence[Path]): Files or folders to train on and to hold out.
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

    resume (bool): Go on from the checkpoint in the work folder.
    RETURNS (dict): The record that is written beside the weights.
    RAISES (SettingError, StorageError, BaseError): Something does not fit; nothing was overwritten.
    """
    text, valid = text_files(places.text), text_files(places.valid)
    precision = arithmetic(settings.training.precision, device)
    if settings.steps < 1:
        raise SettingError(
            f"training.tokens = {settings.training.tokens} is less than one step of "
            f"{settings.training.batch * settings.model.positions} tokens."
        )
    _check_places(places, settings, resume)
    tokenizer = _tokenizer(settings, places, text)
    arrays = _arrays(settings, places.work, tokenizer, text, valid)
    model, progress = _train(settings, places.work, tokenizer, arrays, device, precision)
    return _finish(settings, places, tokenizer, model, progress, valid, device, precision)


def arithmetic(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of the arithmetic: what was asked for, or bfloat16 where the hardware has it.

    RAISES (SettingError): The GPU has no bfloat16.
    """
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        if precision == "bfloat16" and not fast:
            raise SettingError('training.precision = "bfloat16": this GPU has none. Use "float32".')
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if precision == "bfloat16" or (precision == "auto" and fast) else torch.float32


def _check_places(places: Places, settings: PretrainingSettings, resume: bool) -> None:
    if places.output.exists() and (not places.output.is_dir() or any(places.output.iterdir())):
        done = " It holds a finished run." if (places.output / RECORD).is_file() else ""
        raise StorageError(f"the output folder {places.output} exists and is not empty.{done} Name another.")
    checkpoint, begun = places.work / CHECKPOINT, places.work / "settings.json"
    if resume and not checkpoint.is_file():
        raise StorageError(f"there is no checkpoint {checkpoint} to resume from. Leave out --resume to start.")
    if not resume and checkpoint.is_file():
        raise StorageError(f"{checkpoint} is the checkpoint of a run. Use --resume to go on, or another work folder.")
    if begun.is_file():
        check_settings(begun, json.loads(begun.read_text(encoding="utf8")), settings.as_sections())
    elif places.work.exists() and (not places.work.is_dir() or any(places.work.iterdir())):
        raise StorageError(f"the work folder {places.work} holds something else. Name another.")
    places.work.mkdir(parents=True, exist_ok=True)
    begun.write_text(json.dumps(settings.as_sections(), indent=1) + "\n", encoding="utf8")


def _tokenizer(settings: PretrainingSettings, places: Places, text: list[Path]) -> PreTrainedTokenizerFast:
    folder = places.work / "tokenizer"
    if folder.is_dir():
        return take_tokenizer(folder)
    if places.tokenizer is not None:
        tokenizer = take_tokenizer(places.tokenizer)
    else:
        documents = lowercased(read_documents(text), settings.training.lowercase_every)
        every = settings.tokenizer.every
        sample = (document for i, document in enumerate(documents) if i % every == 0)
        tokenizer = train_tokenizer(sample, settings.tokenizer.vocab_size)
    tokenizer.model_max_length = settings.model.positions
    partial = places.work / "tokenizer.partial"
    tokenizer.save_pretrained(str(partial))
    partial.replace(folder)
    return tokenizer


def _arrays(
    settings: PretrainingSettings, work: Path, tokenizer: PreTrainedTokenizerFast, text: list[Path], valid: list[Path]
) -> tuple[TokenArray, TokenArray]:
    arrays = []
    # What is held out is scored as it is written.
    for name, files, every in (("training", text, settings.training.lowercase_every), ("held-out", valid, 0)):
        path = work / f"{name}.tokens"
        if not path.exists():
            write_tokens(lowercased(read_documents(files), every), tokenizer, path, name)
        arrays.append(TokenArray(path, token_dtype(tokenizer), settings.model.positions, name))
    return arrays[0], arrays[1]


def build_model(settings: PretrainingSettings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A LLaMA-architecture model with random weights, the same ones for the same seed; no mask for "mlm"."""
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


def learn_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to `final_rate` of the highest (Loshchilov and Hutter, 2017)."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    done = min(1.0, max(0, step - settings.warmup_steps) / max(1, steps - settings.warmup_steps))
    low = settings.final_rate
    return settings.learn_rate * warm * (low + (1 - low) * (1 + math.cos(math.pi * done)) / 2)


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
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": train.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=train.learn_rate,
        betas=(0.9, train.beta2),
        fused=True,
    )
    progress = Progress()
    if (work / CHECKPOINT).is_file():
        progress = load_checkpoint(work, settings.as_sections(), model, optimizer)
    progress.parts += 1
    run = torch.compile(objective) if train.compile else objective

    def loss_of(blocks: Tensor, seed: int) -> Tensor:
        with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
            return run(model, blocks.to(device, non_blocking=True), seed)

    held_out = np.arange(min(HELD_OUT_BLOCKS, arrays[1].n_blocks))
    tokens_a_step = train.batch * settings.model.positions
    begun, since = time.monotonic() - progress.seconds, []
    model.train()
    with tqdm(
        total=settings.steps * tokens_a_step, initial=progress.step * tokens_a_step, unit=" tok", unit_scale=True
    ) as bar:
        for step in range(progress.step, settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = learn_rate(train, step, settings.steps)
            parts = arrays[0].batch(step, train.batch, train.seed).split(train.micro_batch)
            losses = []
            for i, part in enumerate(parts):
                loss = loss_of(part, (train.seed << 40) + step * len(parts) + i) / len(parts)
                loss.backward()
                losses.append(loss.detach())
            torch.nn.utils.clip_grad_norm_(model.parameters(), train.grad_clip)
            optimizer.step()
            optimizer.zero_grad()
            since.append(torch.stack(losses).sum())
            bar.update(tokens_a_step)
            progress.step = step + 1
            if progress.step % train.checkpoint_every == 0 or progress.step == settings.steps:
                mean = torch.stack(since).mean().item()
                since.clear()
                if not math.isfinite(mean):
                    raise SettingError(
                        f"the loss is {mean} after {progress.step} steps. The last checkpoint is whole; set "
                        f"training.learn_rate below {train.learn_rate} in a run of its own."
                    )
                with torch.inference_mode():
                    pieces = arrays[1].blocks(held_out).split(train.micro_batch)
                    nats = [loss_of(part, i).item() * len(part) for i, part in enumerate(pieces)]
                progress.seconds = time.monotonic() - begun
                held = sum(nats) / len(held_out)
                progress.curve.append([progress.step, progress.step * tokens_a_step, mean, held, progress.seconds])
                bar.set_postfix(loss=f"{mean:.3f}", held_out=f"{held:.3f}")
                save_checkpoint(work, settings.as_sections(), model, optimizer, progress)
    return model, progress


def _finish(
    settings: PretrainingSettings,
    places: Places,
    tokenizer: PreTrainedTokenizerFast,
    model: LlamaForCausalLM,
    progress: Progress,
    valid: list[Path],
    device: torch.device,
    precision: torch.dtype,
) -> dict[str, Any]:
    """Write the folder under another name, score what was written rather than what was held, and rename it."""
    partial = places.output.with_name(places.output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(str(partial))
    tokenizer.save_pretrained(str(partial))
    record = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens_seen": progress.step * settings.training.batch * settings.model.positions,
        "seconds": round(progress.seconds),
        "parts": progress.parts,
        "hardware": hardware(device),
        "arithmetic": str(precision).removeprefix("torch."),
        "versions": {
            "spacy-lsbillm": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "text": [path.name for path in text_files(places.text)],
        "valid": [path.name for path in valid],
        "held_out": _held_out(settings, partial, tokenizer, progress, valid, device),
        "settings": settings.as_sections(),
        "curve_columns": COLUMNS,
        "curve": progress.curve,
    }
    (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")
    (partial / "README.md").write_text(model_card(places.output.name, record), encoding="utf8")
    if places.output.is_dir():
        places.output.rmdir()
    partial.rename(places.output)
    return record


def _held_out(
    settings: PretrainingSettings,
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    progress: Progress,
    valid: list[Path],
    device: torch.device,
) -> dict[str, float]:
    if settings.training.objective == "mlm":
        return {"nats_a_hidden_token": progress.curve[-1][COLUMNS.index("held_out_nats")]}
    length = settings.model.positions
    stored = load_causal_lm(folder, BaseSettings(name=str(folder)), device)
    score = score_text(stored, tokenizer, valid, length=length, label="held-out text")
    random = build_model(settings, tokenizer).eval().to(device)
    score_random = score_text(random, tokenizer, valid, length=length, label="random weights")
    return {
        "nats_a_token": score.nats_a_token,
        "bits_a_byte": score.bits_a_byte,
        "random_weights_bits_a_byte": score_random.bits_a_byte,
    }


def hardware(device: torch.device) -> str:
    """In words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
