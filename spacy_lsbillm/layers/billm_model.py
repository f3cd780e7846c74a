"""The thinc model: documents in, token vectors out."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from spacy.tokens import Doc
from thinc.api import Model

from ..alignment import SpanGetter, context_of, make_batch
from ..backbone import longest_position
from ..errors import SettingError
from ..values import check_at_least
from .base_device import to_thinc
from .shim import BackboneShim
from .shim_settings import ShimSettings
from .state_pooling import PIECES
from .tok2vec import replace_listener, replace_listener_cfg
from .vector_batch import VectorBatch

LONGEST_DEFAULT_WINDOW, SHORTEST_DEFAULT_WINDOW = 512, 64
# The default overlap, and the largest fraction of a window (1/32) it may take: each shared piece is computed twice.
DEFAULT_OVERLAP, OVERLAP_SHARE = 16, 32
# A repeated window must have room for at least this many pieces of a document.
SHORTEST_REPEATED = 16
MAX_BATCH_ITEMS = 4096
# The fixed cost of one forward pass, in pieces: where it is cheaper, short windows are padded to the length of longer
# ones instead of getting a separate pass. On an accelerator starting a pass costs more.
PASS_COST = {"cpu": 64}
PASS_COST_ELSEWHERE = 1024
# Short windows are packed into rows of this many pieces: no padding, and attention stays within a row. Measured on a
# CPU between 16 and 256; an accelerator is faster with fewer, longer rows.
ROW = {"cpu": 64}
ROW_ELSEWHERE = 256
# More pieces per pass than this do not fit a CPU's caches and are up to 50 % slower.
MOST_ITEMS = {"cpu": 1024}


@dataclass(frozen=True)
class ModelSettings:
    """How documents are cut into windows.

    get_spans (SpanGetter): The parts of documents that are tokenised separately; usually whole documents.
    window (int | None): Maximum pieces that the model processes at once, special ones included. None: as in training;
        for a new pipeline see `default_window`.
    overlap (int | None): Minimum pieces that neighbouring windows of a long document share. None: as in training if the
        window is the same, else see `default_overlap`.
    repeat (int): Number of additional copies of a window's pieces before the one whose states are used.
    """

    get_spans: SpanGetter
    window: int | None = None
    overlap: int | None = None
    repeat: int = 0

    def __post_init__(self) -> None:
        if self.window is not None:
            check_at_least("window", self.window, 2, " pieces, or null")
        if self.overlap is not None:
            check_at_least("overlap", self.overlap, 0, " pieces, or null")
        check_at_least("repeat", self.repeat, 0, " copies")

    def fitted(
        self, longest: int | None, width: int, n_special: int, trained: tuple[int | None, int | None] = (None, None)
    ) -> tuple[int, int]:
        """The window and overlap for a base.

        If spans have a context, the window of a new pipeline is extended by that on both sides, as far as the base has
        positions, and neighbouring windows of a long span share at least both contexts.

        longest (int | None): The base's longest position.
        width (int): The width of its states.
        n_special (int): Special pieces per window.
        trained (tuple): The window and overlap of training; None where one is unknown.
        RAISES (SettingError): They do not fit the base or each other.
        """
        most = None if longest is None else longest_window(longest, n_special, self.repeat)
        if longest is not None and most is not None and self.repeat and most - n_special < SHORTEST_REPEATED:
            raise SettingError(
                f"repeat = {self.repeat} is not allowed: the base has {longest} positions, which leaves a window that "
                f"is processed {self.repeat + 1} times room for {max(0, most - n_special)} pieces; it needs "
                f"{SHORTEST_REPEATED}. Use at most {max(0, (longest - n_special) // SHORTEST_REPEATED - 1)}."
            )
        context = context_of(self.get_spans)
        default = default_window(most, width) + 2 * context
        window = self.window or trained[0] or (default if most is None else min(default, most))
        if most is not None and window > most:
            copies = f" (a repeated window takes {self.repeat + 1} times its pieces)" if self.repeat else ""
            raise SettingError(
                f"window = {window} is longer than the base's {longest} positions allow{copies}. Use at most {most}."
            )
        room = window - n_special
        overlap = self.overlap
        if overlap is None:
            overlap = trained[1] if window == trained[0] else None
        if overlap is None:
            overlap = default_overlap(window)
        if not 0 <= overlap < room:
            raise SettingError(
                f"overlap = {overlap} is not allowed with window = {window}: it must be below {room} "
                f"({n_special} pieces per window are special ones)."
            )
        if 2 * context >= room:
            raise SettingError(
                f"context = {context} is not allowed with window = {window}: the context on both sides must leave at "
                f"least one of {room} pieces ({n_special} pieces per window are special ones). Use a context of at "
                f"most {max(0, (room - 1) // 2)}, or a longer window."
            )
        return window, max(overlap, 2 * context)


def longest_window(longest: int, n_special: int, repeat: int) -> int:
    """The longest window, special pieces included, for which all copies of its pieces fit the base's positions."""
    return (longest - n_special) // (repeat + 1) + n_special


def default_window(longest: int | None, width: int) -> int:
    """The default window: 512 pieces, or fewer for a small base.

    It is the base's longest position or half the width of its states if that is smaller, but at least 64. Attention
    then takes at most about a twelfth of the arithmetic of the linear layers: per piece and layer these take some 12 *
    width² multiplications, and attention takes 2 * window * width. A small base gains too little from longer context to
    justify its cost (docs/speed.md).

    longest (int | None): The base's longest position.
    width (int): The width of its states.
    """
    affordable = max(SHORTEST_DEFAULT_WINDOW, width // 2)
    return min(LONGEST_DEFAULT_WINDOW, affordable, longest or LONGEST_DEFAULT_WINDOW)


def default_overlap(window: int) -> int:
    """The default overlap: 16 pieces in windows of at least 512, none in shorter ones.

    In these it would cost more than 3 % of the time. Chosen for speed: with the embedded base an overlap is worth half
    a point of F1 or slightly more (docs/speed.md).
    """
    return DEFAULT_OVERLAP if window >= OVERLAP_SHARE * DEFAULT_OVERLAP else 0


def build_billm_model(settings: ShimSettings, cutting: ModelSettings) -> Model[list[Doc], VectorBatch]:
    """Build the model of the `billm_transformer` component. It has no weights before `initialize` or loading."""
    return Model(
        "billm",
        forward,
        init=init,
        shims=[BackboneShim(settings)],
        dims={"nO": None},
        attrs={
            "cutting": cutting,
            "name": settings.backbone.base.name,
            "max_batch_items": MAX_BATCH_ITEMS,
            "replace_listener": replace_listener,
            "replace_listener_cfg": replace_listener_cfg,
        },
    )


def backbone_shim(model: Model) -> BackboneShim:
    """The shim of a model that `build_billm_model` made."""
    shim = model.shims[0]
    assert isinstance(shim, BackboneShim)
    return shim


def shims_in(model: Model) -> list[BackboneShim]:
    """The shims of all backbones in a component's model."""
    return [shim for node in model.walk() for shim in node.shims if isinstance(shim, BackboneShim)]


def init(model: Model, X: Any = None, Y: Any = None) -> None:
    """Load the base, unless it is loaded already, as in a component that is sourced from a trained pipeline."""
    shim = backbone_shim(model)
    if not shim.loaded:
        shim.initialize()
    fit_to_base(model)


def fit_to_base(model: Model) -> None:
    """Set the width and the window, which follow from the base and from the recorded settings of its training.

    RAISES (SettingError): The window does not fit the base.
    """
    fitted_window(model)
    model.set_dim("nO", backbone_shim(model).backbone.width, force=True)


def fitted_window(model: Model) -> tuple[int, int]:
    """The window and the overlap for the base.

    They are saved with the backbone, since defaults may differ between versions.

    RAISES (SettingError): They do not fit the base.
    """
    shim = backbone_shim(model)
    cutting: ModelSettings = model.attrs["cutting"]
    config = shim.backbone.config
    trained = (shim.window, shim.overlap)
    if shim.repeat not in (None, cutting.repeat):
        warnings.warn(
            f"this pipeline was trained with repeat = {shim.repeat}, and is loaded with {cutting.repeat}: its "
            f"predictions will be less accurate.",
            stacklevel=2,
        )
    shim.repeat = cutting.repeat
    fitted = cutting.fitted(longest_position(config), config.hidden_size, len(shim.special), trained)
    shim.window, shim.overlap = fitted
    return fitted


def rows_for(device: str, max_batch_items: int, packs: bool) -> dict[str, int]:
    """How windows are arranged in rows and forward passes, as keyword arguments of `make_batch`.

    device (str): "cpu", "cuda" …
    max_batch_items (int): The setting: maximum pieces per pass.
    packs (bool): Whether the base allows several windows in one row.
    """
    return {
        "max_items": min(max_batch_items, MOST_ITEMS.get(device, max_batch_items)),
        "pass_cost": PASS_COST.get(device, PASS_COST_ELSEWHERE),
        "row": min(ROW.get(device, ROW_ELSEWHERE), max_batch_items) if packs else 0,
    }


def forward(model: Model, docs: Sequence[Doc], is_train: bool) -> tuple[VectorBatch, Callable[[Any], Sequence[Doc]]]:
    """Run the backbone over all documents, long ones in overlapping windows."""
    shim = backbone_shim(model)
    window, overlap = fitted_window(model)
    rows = rows_for(shim.backbone.device.type, model.attrs["max_batch_items"], shim.backbone.packs)
    batch = make_batch(
        shim.backbone.tokenizer,
        shim.special,
        docs,
        model.attrs["cutting"].get_spans,
        window=window,
        overlap=overlap,
        white_space=shim.white_space,
        repeat=model.attrs["cutting"].repeat,
        **rows,
    )
    vectors, backprop_vectors = shim(batch, is_train)
    arrays: Any = to_thinc(vectors, shim.settings.device)
    if shim.settings.output == PIECES:
        output = VectorBatch.of_pieces(arrays, batch, shim.backbone.tokenizer)
    else:
        output = VectorBatch.of_tokens(arrays, batch)

    def backprop(d_output: Any) -> Sequence[Doc]:
        backprop_vectors(d_output.model_output.last_hidden_state)
        return docs

    return output, backprop
