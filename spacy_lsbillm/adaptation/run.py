"""Running an adaptation: turning text into pieces, training the base further, and writing a base or an adapter."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..backbone import (
    Backbone,
    BackboneSettings,
    BaseSettings,
    MaskPlan,
    fingerprint,
    load_backbone,
    load_base,
    longest_position,
)
from ..backbone.adapter import check_targets, write_adapter
from ..backbone.base_config import read_config
from ..backbone.families import decoder_of, layers_of
from ..backbone.location import resolve_folder
from ..backbone.merge import BESIDE, write_model
from ..backbone.origin import license_of
from ..backbone.skeleton import skeleton_for
from ..backbone.tokenizer import load_tokenizer
from ..backbone.unmask import unmask_layers
from ..backbone.vocabulary import embedding_rows
from ..errors import BaseError, SettingError, StorageError
from ..files import TemporaryFolder, as_os_error, new_folder, parse_json, sole_writer, write_text
from ..language_model.text import read_documents, text_files
from ..pretraining.checkpoint import FILE as CHECKPOINT
from ..pretraining.checkpoint import Progress, load_checkpoint, save_checkpoint
from ..pretraining.loop import COLUMNS, HELD_OUT_BLOCKS, adamw, held_out_nats, run_steps
from ..pretraining.machine import arithmetic, hardware, versions
from ..pretraining.places import check_prepared, claim, described, seal_prepared
from ..pretraining.tokens import TokenArray, check_end, token_dtype, write_tokens
from .card import model_card
from .settings import ADAPTER, ALL, CAUSAL, AdaptationSettings
from .tasks import Task, mask_piece, nats, task_of

RECORD = "adaptation.json"
# Files in the work folder: the score of the start, and the pieces of the text.
BEFORE, TRAINING, HELD_OUT, TOKENS = "before.json", "training", "held-out", ".tokens"
# Every document with this number is held out if no held-out text is given.
HELD_OUT_EVERY = 20
# The default length of a row, if the base allows longer ones.
LONGEST = 512


@dataclass(frozen=True)
class AdaptationPlaces:
    """The files and folders of an adaptation.

    text (Sequence[Path]): Files or folders to train on.
    valid (Sequence[Path]): Files or folders to hold out; without any, every 20th document of the text.
    output (Path): The folder of the result; it must not exist, or be empty.
    work (Path): The folder of pieces and checkpoint.
    """

    text: Sequence[Path]
    valid: Sequence[Path]
    output: Path
    work: Path


@dataclass(frozen=True)
class _Plan:
    """What is known about a run before any weight is read.

    base (BaseSettings), folder (Path): The start.
    unmasked (MaskPlan): Its layers.
    length (int): Pieces per row.
    task (Task), mask_piece (str): What the base must predict.
    steps (int): Optimizer steps.
    """

    base: BaseSettings
    folder: Path
    unmasked: MaskPlan
    length: int
    task: Task
    mask_piece: str
    steps: int


def adapt(
    base: BaseSettings,
    settings: AdaptationSettings,
    places: AdaptationPlaces,
    device: torch.device,
    resume: bool = False,
) -> dict[str, Any]:
    """Train a base further on plain text and write the result.

    base (BaseSettings): With `dtype` for training; `quantization` is allowed only for an adapter.
    resume (bool): Continue from the checkpoint in the work folder. If the run had finished, its result is written
        again, with another `merge`, `output_kind` or `dtype` if these have changed.
    RETURNS (dict): The record that is written beside the result.
    RAISES (SettingError, StorageError, BaseError, AdapterError, MaskError): A setting does not fit; nothing was
        overwritten.
    """
    text, valid = text_files(places.text), text_files(places.valid)
    plan = _planned(base, settings)
    if not valid:
        _check_documents(text)
    precision = arithmetic(settings.precision, device)
    with sole_writer(places.work):
        begun_with = fingerprint(plan.folder)
        sources = {
            "text": [described(path) for path in text],
            "valid": [described(path) for path in valid],
            "base": begun_with,
            "quantization": base.quantization,
        }
        claim(places.output, places.work, {**settings.as_sections(), "sources": sources}, RECORD, resume)
        check_prepared(places.work)
        arrays = _arrays(plan, places.work, text, valid)
        seal_prepared(places.work, [places.work / f"{name}{TOKENS}" for name in (TRAINING, HELD_OUT)])
        backbone = _trainable(plan, settings, device, begun_with)
        score = _scorer(plan, arrays[1], device, precision)
        before = _before(places.work, backbone, score)
        progress = _train(plan, settings, places.work, backbone, arrays[0], score, device, precision)
        with new_folder(places.output) as partial:
            with as_os_error():
                made = _write(plan, settings, backbone, partial, device)
            record = {
                "base": {"name": base.name, "revision": base.revision, "fingerprint": begun_with},
                "fingerprint": None if settings.output_kind == ADAPTER else fingerprint(partial),
                "output_kind": settings.output_kind,
                "merge": settings.merge,
                "mask": plan.unmasked.words,
                "mask_piece": plan.mask_piece,
                "trained_parameters": sum(value.numel() for value in _trained(backbone).values()),
                "tokens_seen": progress.step * settings.batch * plan.length,
                "seconds": round(progress.seconds),
                "parts": progress.parts,
                "hardware": hardware(device),
                "arithmetic": str(precision).removeprefix("torch."),
                "versions": versions(),
                "text": [path.name for path in text],
                "valid": [path.name for path in valid],
                "held_out": {"before": before, "after": score(made)},
                "settings": settings.as_sections(),
                "curve_columns": COLUMNS,
                "curve": progress.curve,
            }
            (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")
            card = model_card(places.output.name, record, license_of(plan.folder))
            (partial / "README.md").write_text(card, encoding="utf8")
        return record


def _planned(base: BaseSettings, settings: AdaptationSettings) -> _Plan:
    """Check that base and settings fit each other.

    RAISES (SettingError, BaseError, AdapterError, MaskError): They do not.
    """
    folder = resolve_folder(base.name, base.revision)
    config = read_config(folder, base)
    stored = getattr(config, "quantization_config", None)
    if settings.train == ALL and (base.quantization or stored):
        how = f"quantization = {base.quantization!r}" if base.quantization else "its files are quantised"
        raise BaseError(
            f"the base {base.name!r} is quantised ({how}), so train = 'all' cannot train its weights. "
            f"Use train = 'lora', or a base that is not quantised."
        )
    unmasked = MaskPlan.parse(settings.unmask, config.num_hidden_layers)
    if settings.objective == CAUSAL and unmasked.unmasks_any:
        raise SettingError(
            f"unmask = {settings.unmask!r} is not allowed with objective = 'causal': an unmasked layer sees the piece "
            f"that is to be predicted. Use \"none\", or objective = 'mntp'."
        )
    if settings.objective != CAUSAL and not unmasked.unmasks_any:
        raise SettingError(
            f"unmask = {settings.unmask!r} unmasks no layer, but objective = {settings.objective!r} trains a "
            f"base to use unmasked layers. Use \"all\", or objective = 'causal'."
        )
    longest = longest_position(config)
    length = settings.length or min(longest or LONGEST, LONGEST)
    if longest is not None and length > longest:
        raise SettingError(
            f"length = {length} is more than the {longest} positions of the base. Use at most {longest}."
        )
    steps = settings.tokens // (settings.batch * length)
    if steps < 1:
        raise SettingError(
            f"tokens = {settings.tokens} is less than one step of {settings.batch * length} pieces: {settings.batch} "
            f"rows of {length}. Use more tokens, or a smaller batch or length."
        )
    empty = skeleton_for(folder, config)
    if settings.lora is not None:
        check_targets(empty, settings.lora)
    tokenizer = load_tokenizer(folder, embedding_rows(empty))
    check_end(tokenizer, folder)
    mask_id, end = mask_piece(tokenizer, settings.mask_piece), tokenizer.eos_token_id
    special = [piece for piece in (tokenizer.bos_token_id, end) if piece is not None]
    task = task_of(settings.objective, settings.mask_share, mask_id, end, special)
    return _Plan(base, folder, unmasked, length, task, tokenizer.convert_ids_to_tokens(mask_id), steps)


def _check_documents(text: list[Path]) -> None:
    n_documents = sum(1 for _ in islice(read_documents(text), HELD_OUT_EVERY))
    if n_documents < HELD_OUT_EVERY:
        raise SettingError(
            f"the text has {n_documents} documents, of which every {HELD_OUT_EVERY}th is held out. Give at least "
            f"{HELD_OUT_EVERY}, with blank lines between them, or a text to hold out with --valid."
        )


def _arrays(plan: _Plan, work: Path, text: list[Path], valid: list[Path]) -> tuple[TokenArray, TokenArray]:
    tokenizer = load_tokenizer(
        plan.folder, embedding_rows(skeleton_for(plan.folder, read_config(plan.folder, plan.base)))
    )

    def documents(held_out: bool) -> Iterator[str]:
        if valid:
            return read_documents(valid if held_out else text)
        last = HELD_OUT_EVERY - 1
        return (one for i, one in enumerate(read_documents(text)) if (i % HELD_OUT_EVERY == last) == held_out)

    arrays = []
    for name, held_out in ((HELD_OUT, True), (TRAINING, False)):
        path = work / f"{name}{TOKENS}"
        if not path.exists():
            write_tokens(documents(held_out), tokenizer, path, name)
        arrays.append(TokenArray(path, token_dtype(tokenizer), plan.length, name, "length"))
    return arrays[1], arrays[0]


def _trainable(plan: _Plan, settings: AdaptationSettings, device: torch.device, expected: str) -> Backbone:
    """The base with an adapter, or with all weights trainable and not shared."""
    torch.manual_seed(settings.seed)
    asked = BackboneSettings(plan.base, settings.unmask, settings.lora)
    backbone = load_backbone(asked, device=device, expected_fingerprint=expected)
    if settings.train == ALL:
        for parameter in backbone.model.parameters():
            # The weights of a base may be shared with other users in this process.
            parameter.data = parameter.data.clone()
            parameter.requires_grad_(True)
    return backbone


def _trained(backbone: Backbone) -> dict[str, nn.Parameter]:
    return {name: value for name, value in backbone.model.named_parameters() if value.requires_grad}


@contextmanager
def _arithmetic(device: torch.device, precision: torch.dtype) -> Iterator[None]:
    with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
        yield


def _scorer(
    plan: _Plan, array: TokenArray, device: torch.device, precision: torch.dtype
) -> Callable[[Backbone], float]:
    """The mean loss on held-out text, without dropout; always with the same masked pieces."""

    def score(backbone: Backbone) -> float:
        def loss_of(blocks: Tensor, seed: int) -> Tensor:
            with _arithmetic(device, precision):
                return nats(backbone, plan.task(blocks.to(device), seed))

        training = backbone.model.training
        backbone.set_training(False)
        try:
            return held_out_nats(loss_of, array, HELD_OUT_BLOCKS)
        finally:
            backbone.set_training(training)

    return score


def _before(work: Path, backbone: Backbone, score: Callable[[Backbone], float]) -> float:
    """The score of the start, which is computed once per run."""
    path = work / BEFORE
    if not os.path.lexists(path):
        if os.path.lexists(work / CHECKPOINT):
            raise StorageError(
                f"{path}, the score before the run, is missing. Name another work folder to start again."
            )
        write_text(path, json.dumps({"nats": score(backbone)}) + "\n")
    try:
        nats = float(parse_json(path.read_text(encoding="utf8"))["nats"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} cannot be read ({error}). Name another work folder to start again.") from error
    print(f"held-out text before: {nats:.3f} nats per predicted piece")
    return nats


def _train(
    plan: _Plan,
    settings: AdaptationSettings,
    work: Path,
    backbone: Backbone,
    array: TokenArray,
    score: Callable[[Backbone], float],
    device: torch.device,
    precision: torch.dtype,
) -> Progress:
    trained = _trained(backbone)
    weights = {name: value.data for name, value in trained.items()}
    optimizer = adamw(list(trained.values()), settings)
    progress = Progress()
    # Even if it is not a file, in which case reading it reports that.
    if os.path.lexists(work / CHECKPOINT):
        progress = load_checkpoint(work, settings.as_sections(), weights, optimizer)
    progress.parts += 1

    def loss_of(blocks: Tensor, seed: int) -> Tensor:
        # Dropout is drawn from torch's own generator, whose state is not in checkpoints.
        torch.manual_seed(seed)
        with _arithmetic(device, precision):
            return nats(backbone, plan.task(blocks.to(device), seed))

    backbone.set_training(True)
    run_steps(
        settings,
        plan.steps,
        backbone.model,
        optimizer,
        progress,
        tokens_per_step=settings.batch * plan.length,
        batch=lambda step: array.batch(step, settings.batch, settings.seed),
        loss_of=loss_of,
        held_out=lambda: score(backbone),
        save=lambda: save_checkpoint(work, settings.as_sections(), weights, optimizer, progress),
    )
    backbone.set_training(False)
    return progress


def _write(
    plan: _Plan, settings: AdaptationSettings, backbone: Backbone, folder: Path, device: torch.device
) -> Backbone:
    """Write the result into a new folder. RETURNS (Backbone): The written result, to be scored."""
    if settings.output_kind == ADAPTER:
        write_adapter(backbone.model, folder, plan.base)
        return backbone
    stored = replace(plan.base, dtype=settings.dtype, quantization=None)
    if settings.lora is None:
        _write_blend(stored, settings.merge, backbone, folder)
    else:
        with TemporaryFolder() as adapter:
            write_adapter(backbone.model, adapter, plan.base)
            # The update is a sum, so it can be scaled.
            part = replace(settings.lora, alpha=settings.lora.alpha * (settings.merge or 1.0))
            write_model(plan.folder, stored, (adapter, part) if settings.merge else None, folder)
    backbone.tokenizer.save_pretrained(str(folder))
    model = load_base(folder, BaseSettings(str(folder), attention=backbone.base.attention), device)
    unmask_layers(layers_of(decoder_of(model, backbone.family), backbone.family), plan.unmasked)
    return replace(backbone, model=model, settings=BackboneSettings(plan.base, settings.unmask))


def _write_blend(stored: BaseSettings, share: float, backbone: Backbone, folder: Path) -> None:
    """Write the start, moved by a fraction of the way to the adapted weights."""
    model = load_base(backbone.folder, stored, torch.device("cpu"))
    adapted = dict(backbone.model.named_parameters())
    for name, start in model.named_parameters():
        # Exact at 0 and 1.
        blended = start.float().lerp(adapted[name].detach().to("cpu", torch.float32), share)
        start.data = blended.to(start.dtype)
    model.save_pretrained(str(folder))
    for pattern in BESIDE:
        for path in backbone.folder.glob(pattern):
            shutil.copyfile(path, folder / path.name)
