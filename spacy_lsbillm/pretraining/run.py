"""A pre-training run: text to tokens, tokens to a model, and at any moment a checkpoint to go on from."""

import hashlib
import json
import math
import platform
import shutil
import time
from collections.abc import Callable, Sequence
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
from ..backbone.base import BaseSettings
from ..backbone.loading import load_base
from ..errors import SettingError, StorageError
from ..files import put_in_place, sole_writer
from .card import model_card
from .checkpoint import FILE as CHECKPOINT
from .checkpoint import Progress, check_settings, load_checkpoint, save_checkpoint
from .objectives import Objective, hidden_tokens, next_token, see_both_ways
from .score import score_text
from .settings import PretrainingSettings, TrainingSettings
from .text import lowercased, read_documents, text_files
from .tokens import TokenArray, take_tokenizer, token_dtype, train_tokenizer, write_tokens

RECORD = "pretraining.json"
# In the work folder: what the run was begun with.
BEGUN = "settings.json"
COLUMNS = ("step", "tokens", "loss", "held_out_nats", "seconds")
# Blocks that are scored at each checkpoint. The number that counts is that of the whole held-out text, at the end.
HELD_OUT_BLOCKS = 256
HELD_OUT_BATCH = 16
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
    with sole_writer(places.work):
        _check_places(places, settings, _sources(text, valid, places.tokenizer), resume)
        tokenizer = _tokenizer(settings, places, text)
        arrays = _arrays(settings, places.work, tokenizer, text, valid)
        model, progress = _train(settings, places.work, tokenizer, arrays, device, precision)
        return _finish(settings, places, tokenizer, model, progress, arrays[1], valid, device, precision)


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


def _check_places(places: Places, settings: PretrainingSettings, sources: dict[str, Any], resume: bool) -> None:
    if places.output.exists() and (not places.output.is_dir() or any(places.output.iterdir())):
        done = " It holds a finished run." if (places.output / RECORD).is_file() else ""
        raise StorageError(f"the output folder {places.output} exists and is not empty.{done} Name another.")
    output, work = places.output.resolve(), places.work.resolve()
    if output == work or output in work.parents or work in output.parents:
        raise StorageError(f"the output folder {places.output} and the work folder {places.work} must lie apart.")
    checkpoint, begun = places.work / CHECKPOINT, places.work / BEGUN
    if not resume and checkpoint.is_file():
        raise StorageError(f"{checkpoint} is the checkpoint of a run. Use --resume to go on, or another work folder.")
    wanted = {**settings.as_sections(), "sources": sources}
    partial = begun.with_name(BEGUN + ".partial")
    # A run that was killed before it had begun has left nothing but that.
    held = {path.name for path in places.work.iterdir()} - {partial.name} if places.work.is_dir() else set()
    if begun.is_file() and held != {BEGUN}:
        check_settings(begun, read_begun(begun), wanted)
        return
    if resume and not held:
        raise StorageError(f"there is no run in {places.work} to resume. Leave out --resume to start.")
    if held - {BEGUN} or (places.work.exists() and not places.work.is_dir()):
        raise StorageError(f"the work folder {places.work} holds something else. Name another.")
    places.work.mkdir(parents=True, exist_ok=True)
    partial.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf8")
    put_in_place(partial, begun)


def _sources(text: list[Path], valid: list[Path], tokenizer: Path | None) -> dict[str, Any]:
    """What a run reads, to tell it from a run on something else."""
    found = {name: [_described(path) for path in files] for name, files in (("text", text), ("valid", valid))}
    return found | {"tokenizer": None if tokenizer is None else _described(tokenizer / "tokenizer.json")}


def _described(path: Path) -> list[Any]:
    """Name, size and a digest of the first megabyte: texts are large."""
    if not path.is_file():
        return [path.name, None, None]
    with path.open("rb") as file:
        return [path.name, path.stat().st_size, hashlib.sha256(file.read(2**20)).hexdigest()]


def read_begun(path: Path) -> dict[str, Any]:
    """The settings and sources that a run was begun with.

    RAISES (StorageError): They cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf8"))
        if not all(isinstance(section, dict) for section in found.values()):
            raise ValueError("it does not hold sections of settings")
    except (ValueError, AttributeError) as error:
        raise StorageError(f"{path} cannot be read ({error}). Name another work folder.") from error
    return dict(found)


def _tokenizer(settings: PretrainingSettings, places: Places, text: list[Path]) -> PreTrainedTokenizerFast:
    folder = places.work / "tokenizer"
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
    partial = places.work / "tokenizer.partial"
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer.save_pretrained(str(partial))
    put_in_place(partial, folder)
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
                loss = loss_of(part, (train.seed * 2**40 + step * len(parts) + i) % 2**63) / len(parts)
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
                held = held_out_nats(loss_of, arrays[1], HELD_OUT_BLOCKS)
                if not math.isfinite(mean + held):
                    raise SettingError(
                        f"the loss is {mean} in training and {held} on held-out text after {progress.step} steps. The "
                        f"last checkpoint is whole; set training.learn_rate below {train.learn_rate} in a run of its "
                        f"own."
                    )
                progress.seconds = time.monotonic() - begun
                progress.curve.append([progress.step, progress.step * tokens_a_step, mean, held, progress.seconds])
                bar.set_postfix(loss=f"{mean:.3f}", held_out=f"{held:.3f}")
                save_checkpoint(work, settings.as_sections(), model, optimizer, progress)
    return model, progress


def held_out_nats(loss_of: Callable[[Tensor, int], Tensor], array: TokenArray, limit: int | None = None) -> float:
    """Mean loss on the first blocks of held-out text, at most `limit` of them. Tokens are hidden by the number of the
    pass, so that the figure is the same whatever the batches of the training."""
    numbers = np.arange(min(limit or array.n_blocks, array.n_blocks))
    with torch.inference_mode():
        parts = array.blocks(numbers).split(HELD_OUT_BATCH)
        return sum(loss_of(part, i).item() * len(part) for i, part in enumerate(parts)) / len(numbers)


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
        "held_out": _held_out(settings, partial, tokenizer, array, valid, device),
        "settings": settings.as_sections(),
        "curve_columns": COLUMNS,
        "curve": progress.curve,
    }
    (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")
    (partial / "README.md").write_text(model_card(places.output.name, record), encoding="utf8")
    put_in_place(partial, places.output)
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
        return {"nats_a_hidden_token": held_out_nats(lambda part, i: objective(stored, part.to(device), i), array)}
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
