"""Fitting a tokenizer to the embedding of its base: pieces for which the embedding has no row."""

import json
import warnings
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ..errors import BaseError, in_short

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def embedding_rows(model: PreTrainedModel) -> int:
    """The number of rows of a model's embedding.

    model (PreTrainedModel): The model; a `skeleton` is sufficient.
    """
    return int(model.get_input_embeddings().weight.shape[0])


def pieces_beyond(tokenizer: PreTrainedTokenizerFast, rows: int) -> dict[str, int]:
    """The pieces of a tokenizer beyond an embedding with this number of rows, with their ids."""
    beyond = {piece: number for piece, number in tokenizer.get_vocab().items() if number >= rows}
    return dict(sorted(beyond.items(), key=lambda item: item[1]))


def fit_tokenizer(tokenizer: PreTrainedTokenizerFast, rows: int, folder: Path) -> None:
    """Remove added pieces beyond the embedding from a tokenizer.

    Such words are then cut into pieces that the base knows. The tokenizer is changed in place.

    rows (int): See `embedding_rows`.
    folder (Path): The tokenizer's folder, for messages.
    RAISES (BaseError): Every text begins or ends with such a piece, or it is not an added one: the tokenizer belongs to
        another base.
    WARNS: Words were added. Special pieces are removed silently: some bases come with those of other modalities.
    """
    beyond = pieces_beyond(tokenizer, rows)
    if not beyond:
        return
    around = sorted({piece for piece in tokenizer("a", verbose=False)["input_ids"] if piece >= rows})
    if around:
        raise BaseError(
            f"the tokenizer in {folder} puts {in_short(tokenizer.convert_ids_to_tokens(around))} around each text, "
            f"with id {in_short(around)}, but the embedding of the base has only {rows} rows. If "
            "tokenizer_config.json is missing, transformers invents such pieces: fetch it, or save the tokenizer "
            "again with the base."
        )
    backend = tokenizer.backend_tokenizer
    added = backend.get_added_tokens_decoder()
    described = json.loads(backend.to_str())
    described["added_tokens"] = [token for token in described["added_tokens"] if token["id"] < rows]
    fitted = Tokenizer.from_str(json.dumps(described))
    left = [piece for piece, number in fitted.get_vocab(with_added_tokens=True).items() if number >= rows]
    if left:
        raise BaseError(
            f"the tokenizer in {folder} has {len(left):,} pieces without a row in the base's embedding (of {rows} "
            f"rows), such as {in_short(left)}: it belongs to another base. Replace it by the right one."
        )
    for name in NAMED:
        if getattr(tokenizer, name, None) in beyond:
            setattr(tokenizer, name, None)
    tokenizer._tokenizer = fitted
    words = [piece for piece, number in beyond.items() if not added[number].special]
    if words:
        warnings.warn(
            f"the tokenizer in {folder} has {len(words):,} added words without a row in the base's embedding (of "
            f"{rows} rows): {in_short(words)}. They are cut into other pieces, as before they were added. To give them "
            f"their own pieces, resize the embedding (model.resize_token_embeddings), train it, and save both.",
            stacklevel=3,
        )
