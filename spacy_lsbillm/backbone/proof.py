"""Proving that the causal mask can be removed from a model, before weights are read.

A small random copy of the config is measured, in seconds. The checks are those that docs/masks.md promises: what a
piece can see, layer by layer; padding; packed rows; the adapter. A model that fails is refused with the measurement.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from .adapter import LoraSettings, add_adapter
from .families import ATTENTIONS, Family, layers_of
from .fold import Folded
from .model import Backbone
from .quiet import quiet
from .shrink import VOCABULARY, WINDOW_NAMES, shrunken
from .trial import (
    LENGTH,
    MIDDLE,
    NARROW,
    TOLERANCE,
    anatomy,
    bare_backbone,
    distance,
    moved_by,
    random_model,
    reach_of,
    states_of,
    trial_batch,
    trial_pieces,
)
from .unmask import mask_given


@dataclass(frozen=True)
class Finding:
    """One check of a proof.

    what (str): The property that must hold.
    passed (bool): Whether it does.
    measured (str): The measurement, in words.
    """

    what: str
    passed: bool
    measured: str


@dataclass(frozen=True)
class Proof:
    """The result of the checks of a config.

    model_type (str): The config's.
    version (str): The version of transformers.
    family (Family | None): The structure of the model; None if the model cannot be used.
    findings (tuple[Finding, ...]): The checks in order; if the model cannot be used, the last one says why.
    seconds (float): How long the checks took.
    """

    model_type: str
    version: str
    family: Family | None
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def reason(self) -> str | None:
        """Why the model cannot be used; None if it can."""
        return None if self.family else f"{self.findings[-1].what}: {self.findings[-1].measured}"


class _Failed(Exception):
    """A finding that ends the proof."""


@dataclass
class _Log:
    findings: list[Finding] = field(default_factory=list)

    def add(self, what: str, passed: bool, measured: str) -> bool:
        self.findings.append(Finding(what, passed, measured))
        return passed

    def need(self, what: str, passed: bool, measured: str) -> None:
        """Record a property that must hold.

        RAISES (_Failed): It does not hold.
        """
        if not self.add(what, passed, measured):
            raise _Failed

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Turn an error inside into a finding: third-party models may raise anything."""
        try:
            yield
        except _Failed:
            raise
        except Exception as error:
            lines = str(error).strip().splitlines()
            self.add(what, False, f"{type(error).__name__}: {lines[0] if lines else 'no details'}")
            raise _Failed from error


def prove(config: Any, name: str) -> Proof:
    """Check a small copy of a config.

    config (PretrainedConfig): The config of a causal language model, without vision or audio parts.
    name (str): The base's, for messages.
    RAISES (BaseError): The small copy of the config cannot be created.
    """
    begun = time.monotonic()
    small = shrunken(config, name)
    log = _Log()
    family = None
    with contextlib.suppress(_Failed), torch.random.fork_rng(devices=[]), quiet():
        family = _prove(config, small, name, log)
    findings = tuple(log.findings)
    return Proof(config.model_type, transformers.__version__, family, findings, time.monotonic() - begun)


def _prove(config: Any, small: Any, name: str, log: _Log) -> Family:
    log.need("it is only a decoder", not small.is_encoder_decoder, f"is_encoder_decoder = {small.is_encoder_decoder}")
    models: dict[str, PreTrainedModel] = {}
    for attention in reversed(ATTENTIONS):
        # SDPA is faster, but not every model supports it.
        optional = contextlib.suppress(ValueError, ImportError)
        with optional if attention == "sdpa" else log.step("a small copy can be made"):
            models[attention] = random_model(small, attention)
    with log.step("the layers can be found"):
        family = anatomy(models["eager"])
    expected = {attention: _own_states(model, family, log) for attention, model in models.items()}
    if "sdpa" in models:
        largest = distance(expected["sdpa"], expected["eager"])
        what = '"sdpa" computes the same as "eager"'
        if not log.add(what, largest < TOLERANCE, f"largest difference {largest:.1g}"):
            del models["sdpa"]
    packs = True
    for attention in [name for name in ATTENTIONS if name in models]:
        with log.step(f"{attention}: the model can be tried"):
            backbone = bare_backbone(models[attention], replace(family, attentions=(attention,)), name)
            _check_masks(backbone, log, attention)
            _check_sight(backbone, expected[attention], log, attention)
            _check_padding(backbone, log, attention)
        packs = packs and _check_packing(backbone, log, attention)
    _check_windows(config, name, family, tuple(models), log)
    with log.step("an adapter can be trained and folded in"):
        _check_adapter(models, family, name, log)
    return replace(family, attentions=tuple(name for name in ATTENTIONS if name in models), packs=packs)


def _own_states(model: PreTrainedModel, family: Family, log: _Log) -> Tensor:
    """The states that the unchanged model computes on rows with padding."""
    ids, mask = trial_batch()
    decoder = model.get_submodule(family.decoder)
    with log.step("the model runs"), torch.inference_mode():
        states = decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    finite = bool(torch.isfinite(states[mask.bool()]).all())
    log.need("all states are finite", finite, "yes" if finite else "some are not")
    return states


def _check_masks(backbone: Backbone, log: _Log, attention: str) -> None:
    """Check that each attention layer gets a mask over pairs of pieces in a batch with padding.

    Layers that mix pieces in another way, such as state spaces, linear attention and convolutions, do not.
    """
    given: list[Any] = []

    def look(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given.append(mask_given(layer, args, kwargs))

    layers = layers_of(backbone.causal_lm.get_submodule(backbone.family.decoder), backbone.family)
    hooks = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in layers]
    states_of(backbone, *trial_batch())
    for hook in hooks:
        hook.remove()
    wrong = [
        f"{words} gets {'none' if mask is None else f'one of shape {tuple(mask.shape)}'}"
        for words, mask in zip(_layers_in_words(backbone), given, strict=True)
        if not isinstance(mask, Tensor) or mask.ndim != 4
    ]
    measured = wrong[0] if wrong else "all of them do"
    log.need(f"{attention}: every layer gets a mask over pairs of pieces", not wrong, measured)


def _check_sight(backbone: Backbone, expected: Tensor, log: _Log, attention: str) -> None:
    ids, mask = trial_batch()
    real = mask.bool()
    states = states_of(backbone, ids, mask)
    largest = distance(states[real], expected[real])
    log.need(
        f"{attention}: with no layer unmasked, the states are those of the unchanged model",
        largest < TOLERANCE,
        f"largest difference {largest:.1g}",
    )
    what = f"{attention}: with no layer unmasked, position 0 does not move when the last piece changes"
    moved = moved_by(backbone, "none")
    log.need(what, max(moved) < TOLERANCE, _movement(moved))
    for layer, words in enumerate(_layers_in_words(backbone)):
        what = f"{attention}: with {words} unmasked, position 0 moves when the last piece changes"
        with log.step(what):
            moved = moved_by(backbone, f"layers:{layer}")
            log.need(what, min(moved) > TOLERANCE, _movement(moved))
    what = f"{attention}: with all layers unmasked, position 0 moves when the last piece changes"
    moved = moved_by(backbone, "all")
    log.need(what, min(moved) > TOLERANCE, _movement(moved))


def _movement(moved: tuple[float, float]) -> str:
    return f"moved by {moved[0]:.1g} without padding, {moved[1]:.1g} with padding"


def _layers_in_words(backbone: Backbone) -> list[str]:
    """Each layer with its kind, if the config names kinds."""
    count, config = len(backbone.plan.unmasked), backbone.config
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or []
    shown = [f" ({kind})" for kind in kinds] if len(kinds) == count else [""] * count
    return [f"layer {layer}{kind}" for layer, kind in enumerate(shown)]


def _check_padding(backbone: Backbone, log: _Log, attention: str) -> None:
    ids, mask = trial_batch()
    real = mask.bool()
    other = torch.where(real, ids, (ids + 7) % VOCABULARY)
    largest, apart = 0.0, 0.0
    for unmask in ("none", "all"):
        backbone.use_mask(unmask)
        states = states_of(backbone, ids, mask)
        largest = max(largest, distance(states[real], states_of(backbone, other, mask)[real]))
        for row, length in enumerate(mask.sum(1).tolist()):
            alone = states_of(backbone, ids[row : row + 1, :length], mask[row : row + 1, :length])
            apart = max(apart, distance(states[row : row + 1, :length], alone))
    what = f"{attention}: the content of padding has no effect"
    log.need(what, largest < TOLERANCE, f"largest difference {largest:.1g}")
    log.need(f"{attention}: states do not depend on the batch", apart < TOLERANCE, f"largest difference {apart:.1g}")


def _check_packing(backbone: Backbone, log: _Log, attention: str) -> bool:
    """Check that two texts in one row give the same states as each alone. If not, texts are not packed."""
    what = f"{attention}: texts that share a row have the same states as alone"
    sizes = (5, 7)
    ids = trial_pieces(1)
    positions = torch.cat([torch.arange(size) for size in sizes])[None]
    mask = torch.ones_like(ids)
    largest = 0.0
    try:
        for unmask in ("none", "all"):
            backbone.use_mask(unmask)
            together = states_of(backbone, ids, mask, positions)
            parts = [states_of(backbone, part, torch.ones_like(part)) for part in ids.split(list(sizes), dim=1)]
            largest = max(largest, distance(together, torch.cat(parts, dim=1)))
    except Exception as error:
        lines = str(error).strip().splitlines()
        return log.add(what, False, f"{type(error).__name__}: {lines[0] if lines else 'no details'}")
    return log.add(what, largest < TOLERANCE, f"largest difference {largest:.1g}")


def _check_windows(config: Any, name: str, family: Family, attentions: tuple[str, ...], log: _Log) -> None:
    """Check that an unmasked sliding window reaches as far to the right as to the left."""
    windows = [key for key in WINDOW_NAMES if isinstance(getattr(config, key, None), int) and getattr(config, key)]
    if not windows or not getattr(config, "use_sliding_window", True):
        return
    kinds = getattr(config, "layer_types", None)
    if kinds and "sliding_attention" not in kinds:
        return
    for attention in attentions:
        what = f"{attention}: an unmasked sliding window reaches as far to the right as to the left"
        with log.step(what):
            small = shrunken(config, name, window=NARROW)
            first = list(small.layer_types).index("sliding_attention") if kinds else 0
            model = random_model(small, attention)
            backbone = bare_backbone(model, replace(family, attentions=(attention,)), name)
            reach = {}
            for unmask in ("none", "all"):
                backbone.use_mask(unmask)
                reach[unmask] = reach_of(backbone, first)
            right, left = reach["none"], [2 * MIDDLE - place for place in reversed(reach["none"])]
            windowed = 1 < len(right) < LENGTH - MIDDLE
            log.need(
                what,
                reach["all"] == sorted({*left, *right}) or not windowed,
                f"a change at position {MIDDLE} moves {reach['all']}, and with the causal mask {right}",
            )


def _check_adapter(models: dict[str, PreTrainedModel], family: Family, name: str, log: _Log) -> None:
    attention = next(name for name in ATTENTIONS if name in models)
    plain = bare_backbone(models[attention], replace(family, attentions=(attention,)), name)
    plain.use_mask("all")
    ids, mask = trial_batch()
    before = states_of(plain, ids, mask)
    adapted = replace(plain, model=add_adapter(plain.model, LoraSettings(r=4, dropout=0.0)))
    adapted.model.eval()
    target = torch.randn(before.shape, generator=torch.Generator().manual_seed(2))
    for _ in range(2):
        loss = ((adapted.states(ids, mask) - target)[mask.bool()] ** 2).mean()
        loss.backward()
        with torch.no_grad():
            for value in adapted.adapter_parameters().values():
                if value.grad is not None:
                    value.sub_(value.grad.sign(), alpha=0.02)
                    value.grad = None
    after = states_of(adapted, ids, mask)
    moved = distance(after[mask.bool()], before[mask.bool()])
    log.need("an adapter can be trained", moved > TOLERANCE, f"two steps move the states by {moved:.1g}")
    folded = Folded(adapted).backbone
    largest = distance(states_of(folded, ids, mask)[mask.bool()], after[mask.bool()])
    log.need("an adapter can be folded into the weights", largest < TOLERANCE, f"largest difference {largest:.1g}")
