"""The mask plan: which decoder layers keep their causal mask and which attend in both directions."""

import re
from dataclasses import dataclass
from itertools import groupby

from ..errors import MaskError

NOTATIONS = (
    '"all", "none", a bit string such as "0011" or "bits:0011" (one bit per group of equal size, the first bit is the '
    'group next to the input), "from:8" (layer 8 and all above, counted from 0) or "layers:4-7,12"'
)


@dataclass(frozen=True)
class MaskPlan:
    """Which layers `unmask` selects in a model of a given depth.

    notation (str): The notation as it was written.
    unmasked (tuple[bool, ...]): One entry per layer, from the input on; true where the layer attends in both
        directions.
    """

    notation: str
    unmasked: tuple[bool, ...]

    @classmethod
    def parse(cls, notation: object, n_layers: int, setting: str = "unmask") -> "MaskPlan":
        """Read a notation for a model with `n_layers` layers.

        setting (str): Name of the setting, for the message.
        RAISES (MaskError): The notation cannot be read or does not fit the number of layers.
        """
        text = check_notation(notation, setting)
        kind, _, value = text.rpartition(":")
        if text in ("all", "none"):
            unmasked = [text == "all"] * n_layers
        elif kind in ("", "bits"):
            unmasked = _from_bits(value, f"{setting} = {text!r}", n_layers)
        elif kind == "from":
            first = int(value)
            _check_layer(first, f"{setting} = {text!r}", n_layers)
            unmasked = [i >= first for i in range(n_layers)]
        else:
            unmasked = [False] * n_layers
            for first, last in _ranges(value):
                _check_layer(last, f"{setting} = {text!r}", n_layers)
                unmasked[first : last + 1] = [True] * (last + 1 - first)
        return cls(text, tuple(unmasked))

    @property
    def unmasks_any(self) -> bool:
        """Whether any layer attends in both directions."""
        return any(self.unmasked)

    @property
    def grouped(self) -> list[tuple[str, int, bool]]:
        """Runs of neighbouring layers that attend alike, from the input on.

        Each has a name such as "layers 0-3", the number of its layers, and whether they attend in both directions.
        """
        runs = []
        for flag, run in groupby(range(len(self.unmasked)), self.unmasked.__getitem__):
            layers = list(run)
            where = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]}-{layers[-1]}"
            runs.append((where, len(layers), flag))
        return runs

    @property
    def runs(self) -> str:
        """The plan in words, such as "layers 0-3 causal, layers 4-7 bidirectional"."""
        return ", ".join(f"{where} {word_for(flag)}" for where, _, flag in self.grouped)

    @property
    def words(self) -> str:
        """The plan in words, with the position of layer 0, as bit strings are read in opposite directions elsewhere."""
        return f"{self.runs} (layer 0 is next to the input)"


def word_for(unmasked: bool) -> str:
    """The word for how a layer attends."""
    return "bidirectional" if unmasked else "causal"


def check_notation(notation: object, setting: str = "unmask") -> str:
    """Check a notation as far as that is possible without a model, and return it.

    RAISES (MaskError): It cannot be read.
    """
    if isinstance(notation, bool) or not isinstance(notation, str):
        advice = ""
        if isinstance(notation, int) and not isinstance(notation, bool):
            advice = (
                f' A bit string without quotes turns into a number: write "bits:{notation}" with its leading zeros.'
            )
        raise MaskError(f"{setting} = {notation!r} is not a string.{advice} Allowed: {NOTATIONS}.")
    readable = notation in ("all", "none") or any(
        re.fullmatch(pattern, notation)
        for pattern in (r"(bits:)?[01]+", r"from:\d{1,9}", r"layers:\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*")
    )
    if not readable:
        raise MaskError(f"{setting} = {notation!r} is not a notation of layers. Allowed: {NOTATIONS}.")
    if notation.startswith("layers:"):
        for first, last in _ranges(notation.removeprefix("layers:")):
            if first > last:
                raise MaskError(
                    f"{setting} = {notation!r}: the range {first}-{last} runs backwards. Write {last}-{first}."
                )
    return notation


def unmasks(notation: str) -> bool:
    """Whether a valid notation names any layer."""
    kind, _, value = notation.rpartition(":")
    return kind in ("from", "layers") or value == "all" or "1" in value


def _from_bits(bits: str, where: str, n_layers: int) -> list[bool]:
    size, rest = divmod(n_layers, len(bits))
    if rest or not size:
        fitting = ", ".join(str(n) for n in range(1, n_layers + 1) if n_layers % n == 0)
        raise MaskError(
            f"{where}: {len(bits)} bits do not divide {n_layers} layers into groups of equal size. "
            f"Use one of these numbers of bits: {fitting}."
        )
    return [bit == "1" for bit in bits for _ in range(size)]


def _ranges(text: str) -> list[tuple[int, int]]:
    pairs = (part.partition("-") for part in text.split(","))
    return [(int(first), int(last or first)) for first, _, last in pairs]


def _check_layer(layer: int, where: str, n_layers: int) -> None:
    if layer >= n_layers:
        raise MaskError(f"{where}: there is no layer {layer}; the model has {n_layers} layers, 0 to {n_layers - 1}.")
