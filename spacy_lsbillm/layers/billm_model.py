"""The thinc model: documents in, token vectors out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from spacy.tokens import Doc
from thinc.api import Model, torch2xp

from ..alignment import make_batch
from ..alignment.pieces import SpanGetter
from ..backbone import longest_position
from ..errors import SettingError
from .shim import PIECES, BackboneShim, ShimSettings
from .tok2vec import replace_listener, replace_listener_cfg
from .vector_batch import VectorBatch

LONGEST_DEFAULT_WINDOW, SHORTEST_DEFAULT_WINDOW = 512, 64
# The default overlap, and the part of a window that it may be at the most: each piece of it is computed twice.
DEFAULT_OVERLAP, OVERLAP_SHARE = 16, 32
MAX_BATCH_ITEMS = 4096
# What one pass of the model costs beside its pieces, in pieces: short windows are padded to longer ones rather than
# given a pass of their own where that is cheaper. An accelerator is idle for longer while a pass starts.
PASS_COST = {"cpu": 64}
PASS_COST_ELSEWHERE = 1024
# Short windows share rows of this many pieces: nothing is padded, and attention looks no further. Measured on a CPU
# between 16 and 256; an accelerator is better off with fewer, longer rows.
ROW = {"cpu": 64}
ROW_ELSEWHERE = 256
# More pieces at once than this do not fit a CPU's caches, and are slower by up to a half.
MOST_ITEMS = {"cpu": 1024}


@dataclass(frozen=True)
class ModelSettings:
    """How documents are cut.

    get_spans (SpanGetter): The parts of documents that are tokenised on their own; usually whole documents.
    window (int | None): Pieces that the model sees at once, special ones counted. None: see `default_window`.
    overlap (int | None): Pieces that neighbouring windows of a long document share at the least. None: see
        `default_overlap`.
    """

    get_spans: SpanGetter
    window: int | None
    overlap: int | None

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 2:
            raise SettingError(f"window = {self.window!r} is not allowed: it must be at least 2 pieces, or null.")
        if self.overlap is not None and self.overlap < 0:
            raise SettingError(f"overlap = {self.overlap!r} is not allowed: it must not be negative, or null.")

    def fitted(self, longest: int | None, width: int, n_special: int) -> tuple[int, int]:
        """The window and overlap for a base.

        longest (int | None): The base's longest position.
        width (int): Of its states.
        n_special (int): Special pieces a window.
        RAISES (SettingError): They do not fit the base or each other.
        """
        window = self.window or default_window(longest, width)
        if longest is not None and window > longest:
            raise SettingError(
                f"window = {window} is longer than the base's {longest} positions. Use at most {longest}."
            )
        room = window - n_special
        overlap = default_overlap(window) if self.overlap is None else self.overlap
        if not 0 <= overlap < room:
            raise SettingError(
                f"overlap = {overlap} is not allowed with window = {window}: it must be below {room} "
                f"({n_special} pieces a window are special ones)."
            )
        return window, overlap


def default_window(longest: int | None, width: int) -> int:
    """512 pieces, or the longest position of the base or half the width of its states if that is less, but no fewer
    than 64. So attention takes no more than about a twelfth of the arithmetic of the linear layers: for each piece of
    a window these take some 12 * width² multiplications in a layer, and attention 2 * window * width. What a small
    base makes of a longer context is not worth it (docs/speed.md).

    longest (int | None): The base's longest position.
    width (int): Of its states.
    """
    affordable = max(SHORTEST_DEFAULT_WINDOW, width // 2)
    return min(LONGEST_DEFAULT_WINDOW, affordable, longest or LONGEST_DEFAULT_WINDOW)


def default_overlap(window: int) -> int:
    """16 pieces in windows of at least 512, none in shorter ones, where they would cost more than 3 % of the time.
    Chosen for speed: for the embedded base they are worth half a point of F1 or a little more (docs/speed.md)."""
    return DEFAULT_OVERLAP if window >= OVERLAP_SHARE * DEFAULT_OVERLAP else 0


def build_billm_model(settings: ShimSettings, cutting: ModelSettings) -> Model[list[Doc], VectorBatch]:
    """The model under the `billm_transformer` component. It holds no weights until `initialize` or loading."""
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


def init(model: Model, X: Any = None, Y: Any = None) -> None:
    """Load the base, unless there is one, as in a component that is sourced from a trained pipeline."""
    shim = backbone_shim(model)
    if not shim.loaded:
        shim.initialize()
    fit(model)


def fit(model: Model) -> None:
    """Set the width, which follows from the base, and check that the window fits it."""
    fitted_window(model)
    model.set_dim("nO", backbone_shim(model).backbone.width, force=True)


def fitted_window(model: Model) -> tuple[int, int]:
    """The window and the overlap for the base.

    RAISES (SettingError): They do not fit it.
    """
    shim = backbone_shim(model)
    cutting: ModelSettings = model.attrs["cutting"]
    config = shim.backbone.config
    return cutting.fitted(longest_position(config), config.hidden_size, len(shim.special))


def rows_for(device: str, max_batch_items: int, packs: bool) -> dict[str, int]:
    """How windows are put into rows and passes: what `make_batch` takes by these names.

    device (str): "cpu", "cuda" …
    max_batch_items (int): The setting.
    packs (bool): Whether the base allows several windows in a row.
    """
    return {
        "max_items": min(max_batch_items, MOST_ITEMS.get(device, max_batch_items)),
        "pass_cost": PASS_COST.get(device, PASS_COST_ELSEWHERE),
        "row": min(ROW.get(device, ROW_ELSEWHERE), max_batch_items) if packs else 0,
    }


def forward(model: Model, docs: Sequence[Doc], is_train: bool) -> tuple[VectorBatch, Callable[[Any], Sequence[Doc]]]:
    """One pass of the backbone over all documents; long ones in overlapping windows."""
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
        **rows,
    )
    vectors, backprop_vectors = shim(batch, is_train)
    if shim.settings.output == PIECES:
        output = VectorBatch.of_pieces(torch2xp(vectors), batch, shim.backbone.tokenizer)
    else:
        output = VectorBatch.of_tokens(torch2xp(vectors), batch)

    def backprop(d_output: Any) -> Sequence[Doc]:
        backprop_vectors(d_output.model_output.last_hidden_state)
        return docs

    return output, backprop
