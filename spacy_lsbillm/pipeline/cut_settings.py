"""How the settings of a component cut documents for its base, read without its weights."""

from typing import Any

from spacy.util import registry
from thinc.api import Model

from ..alignment import SpecialPieces
from ..alignment.statistics import CutSettings
from ..backbone import longest_position
from ..backbone.base_config import read_config
from ..backbone.location import TOKENIZER_FILES, resolve_folder
from ..backbone.proved import family_of
from ..backbone.skeleton import skeleton
from ..backbone.tokenizer import load_tokenizer
from ..backbone.vocabulary import embedding_rows, pieces_beyond
from ..layers import backbone_shim
from ..layers.billm_model import rows_for
from .billm_transformer import DEFAULT_CONFIG


def cutting_for(block: dict[str, Any], batch_size: int) -> tuple[str, CutSettings]:
    """The name of the base, and how documents are cut for it on a CPU.

    block (dict): The block of a billm_transformer in a config, interpolated.
    batch_size (int): Documents per batch.
    RAISES (ValueError): There is no such base, or a setting is not allowed or does not fit it.
    """
    model: Model = registry.resolve({"model": block["model"]})["model"]
    shim = backbone_shim(model)
    settings = shim.settings.backbone.base
    folder = resolve_folder(settings.name, settings.revision, TOKENIZER_FILES)
    base_config = read_config(folder, settings)
    rows_of_base = embedding_rows(skeleton(base_config))
    without_embedding = tuple(pieces_beyond(load_tokenizer(folder), rows_of_base))
    tokenizer = load_tokenizer(folder, rows_of_base)
    special = SpecialPieces.of(tokenizer, shim.settings.add_bos_token)
    longest = longest_position(base_config)
    window, overlap = model.attrs["cutting"].fitted(longest, base_config.hidden_size, len(special))
    items = block.get("max_batch_items", DEFAULT_CONFIG["max_batch_items"])
    get_spans = model.attrs["cutting"].get_spans
    rows = rows_for("cpu", items, family_of(base_config, settings.name).packs)
    white_space = shim.white_space
    return settings.name, CutSettings(
        tokenizer,
        special,
        get_spans,
        window,
        overlap,
        batch_size,
        white_space,
        without_embedding=without_embedding,
        repeat=model.attrs["cutting"].repeat,
        **rows,
    )
