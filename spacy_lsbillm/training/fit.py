"""Which settings of a base fit the memory of a machine, how long they take, and what to change if none fits."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..backbone import BackboneSettings, BaseSettings
from ..backbone.base import DTYPES as ALL_DTYPES
from ..backbone.base import QUANTIZATIONS
from ..backbone.base_shape import BaseShape
from ..backbone.footprint import Footprint, Work, dtype_of, footprint_of
from ..backbone.pace import PREDICTION, TRAINING, Clock, Speed, measure_speed, operations_of, pieces_per_second
from ..errors import SettingError
from ..layers.billm_model import default_window, longest_window, rows_for
from ..values import check_choice
from .config import DEVICES
from .fitted import fitted_to

# A rough figure for English and a vocabulary of some ten thousand pieces; `debug-pieces` counts those of a corpus.
PIECES_PER_WORD = 1.3
NO_QUANTIZATION = "none"
# The dtypes that are tried if none is asked for.
DTYPES = ("float32", "bfloat16")
# In the dtype that `init-config` chooses for the device.
TRIED_QUANTIZATION = "nf4"


@dataclass(frozen=True)
class Wanted:
    """What is asked for. None leaves a setting open, and several values of it are tried.

    name (str): The base.
    dtype (str | None): Of weights and arithmetic.
    quantization (str | None): "none", "nf4", "fp4" or "int8".
    gradient_checkpointing (bool | None): Whether training recomputes states.
    depth (int | None): The number of layers; None: all.
    """

    name: str
    dtype: str | None = None
    quantization: str | None = None
    gradient_checkpointing: bool | None = None
    depth: int | None = None

    def check(self) -> None:
        """Check the values that no base allows.

        RAISES (SettingError): One is not allowed.
        """
        if self.dtype is not None:
            check_choice("dtype", self.dtype, ALL_DTYPES)
        if self.quantization is not None:
            check_choice("quantization", self.quantization, (NO_QUANTIZATION, *filter(None, QUANTIZATIONS)))


@dataclass(frozen=True)
class Estimate:
    """What one combination of settings takes.

    settings (BackboneSettings): The settings.
    footprint (Footprint): The memory.
    pieces_per_second (dict): Of prediction and of training; empty if it was not measured.
    """

    settings: BackboneSettings
    footprint: Footprint
    pieces_per_second: dict[str, float]

    @property
    def in_words(self) -> str:
        """The settings as they would be written in a config."""
        base = self.settings.base
        said = [f'dtype = "{base.dtype}"']
        if base.quantization:
            said.append(f'quantization = "{base.quantization}"')
        if self.settings.gradient_checkpointing:
            said.append("gradient_checkpointing = true")
        if base.depth is not None:
            said.append(f"depth = {base.depth}")
        return ", ".join(said)


def work_for(shape: BaseShape, device: str, repeat: int = 0, batch_pieces: int | None = None) -> Work:
    """What goes through a base at once with the settings of `init-config`.

    batch_pieces (int | None): Pieces in a training batch; None: those in a batch of the config's number of words.
    RAISES (SettingError): A value is out of range, or the base has too few positions for the copies.
    """
    chosen = DEVICES[device]
    words = fitted_to(shape.size).cpu_batch_words if device == "cpu" else chosen.batch_words
    pieces = round(words * PIECES_PER_WORD) if batch_pieces is None else batch_pieces
    longest = shape.size.longest
    most = None if longest is None else longest_window(longest, 0, repeat)
    if most is not None and most < 1:
        raise SettingError(f"repeat = {repeat} leaves no room for text in the base's {longest} positions.")
    window = default_window(most, shape.size.width)
    length = window if most is None else min(window, most)
    passes = rows_for("cpu" if device == "cpu" else "cuda", chosen.max_batch_items, shape.packs)["max_items"]
    return Work(pieces, passes, length, repeat, device)


def settings_of(wanted: Wanted, shape: BaseShape, device: str) -> Iterator[BackboneSettings]:
    """All combinations of settings that are asked for or left open, those that change the least first."""
    kinds: list[tuple[str, str | None]] = []
    usual = DEVICES[device].dtype
    if wanted.quantization in (None, NO_QUANTIZATION):
        dtypes = [wanted.dtype] if wanted.dtype else sorted(DTYPES, key=lambda dtype: dtype != usual)
        kinds += [(dtype, None) for dtype in dtypes]
    if wanted.quantization != NO_QUANTIZATION:
        kinds.append((wanted.dtype or usual, wanted.quantization or TRIED_QUANTIZATION))
    checkpointing = (False, True) if wanted.gradient_checkpointing is None else (wanted.gradient_checkpointing,)
    for dtype, quantization in kinds:
        for flag in checkpointing:
            base = BaseSettings(wanted.name, dtype=dtype, quantization=quantization, depth=wanted.depth)
            yield BackboneSettings(base, lora=shape.lora, gradient_checkpointing=flag)


def estimates_of(
    shape: BaseShape,
    settings: Sequence[BackboneSettings],
    work: Work,
    device: torch.device | None,
    clock: Clock = time.perf_counter,
) -> list[Estimate]:
    """The memory and the speed of each combination of settings.

    device (device | None): Where the speed is measured; None: it is not.
    clock (Callable): Returns seconds.
    RAISES (SettingError): A value is not possible with this base or device.
    """
    speeds: dict[str, Speed] = {}
    estimates = []
    for one in settings:
        footprint = footprint_of(shape, one, work)
        pace = {}
        # Unpacking quantised weights takes time that is not measured.
        if device is not None and one.base.quantization is None:
            dtype = dtype_of(shape, one.base.dtype)
            if dtype not in speeds:
                speeds[dtype] = measure_speed(shape, dtype, work, device, clock)
            for what, operations in operations_of(shape, one, work).items():
                pace[what] = pieces_per_second(operations, speeds[dtype], what)
        estimates.append(Estimate(one, footprint, pace))
    return estimates


def fits(estimate: Estimate, memory: int) -> dict[str, bool]:
    """Whether training and prediction fit into a number of bytes."""
    footprint = estimate.footprint
    return {TRAINING: footprint.training <= memory, PREDICTION: footprint.prediction <= memory}


def largest_that_fits(least: int, most: int, fits: Callable[[int], bool]) -> int | None:
    """The largest number from `least` to `most` that fits, if all smaller ones fit, too; None if none does."""
    if not fits(least):
        return None
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    return least


def advice(shape: BaseShape, estimates: Sequence[Estimate], work: Work, memory: int) -> list[str]:
    """What to change if no training fits, in words, one entry each; empty if one fits."""
    if any(fits(one, memory)[TRAINING] for one in estimates):
        return []
    smallest = min(estimates, key=lambda estimate: estimate.footprint.training)

    def trains(settings: BackboneSettings, work: Work) -> bool:
        return footprint_of(shape, settings, work).training <= memory

    said = []
    pieces = largest_that_fits(
        1, work.batch_pieces, lambda number: trains(smallest.settings, replace(work, batch_pieces=number))
    )
    if pieces is not None:
        words = int(pieces / PIECES_PER_WORD)
        said.append(f"A smaller batch: --batch-pieces {pieces}, about training.batcher.size = {words}")
    layers = len(shape.used_layers(smallest.settings.base.depth))
    depth = largest_that_fits(1, layers, lambda number: trains(_at_depth(smallest.settings, number), work))
    if depth is not None:
        said.append(f"Fewer layers: --depth {depth} of {len(shape.layers)}")
    if not smallest.settings.gradient_checkpointing:
        said.append("--gradient-checkpointing: states are computed again instead of being kept")
    if smallest.settings.base.quantization is None:
        said.append("--quantization nf4: the weights of linear layers take half a byte each")
    if fits(smallest, memory)[PREDICTION]:
        said.append("Train on a larger machine: prediction fits here")
    said.append("A smaller base")
    return said


def _at_depth(settings: BackboneSettings, depth: int) -> BackboneSettings:
    return replace(settings, base=replace(settings.base, depth=depth))


def as_json(estimate: Estimate, memory: int | None) -> dict[str, Any]:
    """An estimate as an entry of a JSON file."""
    base, footprint = estimate.settings.base, estimate.footprint
    return {
        "dtype": base.dtype,
        "quantization": base.quantization,
        "depth": base.depth,
        "gradient_checkpointing": estimate.settings.gradient_checkpointing,
        "bytes": {**vars(footprint), "training": footprint.training, "prediction": footprint.prediction},
        "fits": None if memory is None else fits(estimate, memory),
        "pieces_per_second": estimate.pieces_per_second,
    }
