"""A tokenizer and the embedding of its base: pieces that the embedding has no row for."""

import json
import warnings
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ..errors import BaseError, in_short

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def embedding_rows(model: PreTrainedModel) -> int:
    """The number of pieces that a model knows.

    model (PreTrainedModel): Its `skeleton` will do.
    """
    return int(model.get_input_embeddings().weight.shape[0])


def pieces_beyond(tokenizer: PreTrainedTokenizerFast, rows: int) -> dict[str, int]:
    """The pieces of a tokenizer that an embedding of so many rows does not have, with their numbers."""
    found = {piece: number for piece, number in tokenizer.get_vocab().items() if number >= rows}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def fit_tokenizer(tokenizer: PreTrainedTokenizerFast, rows: int, folder: Path) -> None:
    """Take out of a tokenizer what was added to it beyond the embedding, so that such words are cut into the pieces
    that the base knows. It is done in place.

    rows (int): See `embedding_rows`.
    folder (Path): Where it lies, for messages.
    RAISES (BaseError): Texts always begin or end with such a piece, or it is not an added one: the tokenizer is that of
        another base.
    WARNS: Words were added. Special pieces are left out without a word: some bases come with those of other modalities.
    """
    beyond = pieces_beyond(tokenizer, rows)
    if not beyond:
        return
    around = sorted({piece for piece in tokenizer("a", verbose=False)["input_ids"] if piece >= rows})
    if around:
        raise BaseError(
            f"the tokenizer in {folder} puts {in_short(tokenizer.convert_ids_to_tokens(around))} around each text, as "
            f"number {in_short(around)}, but the embedding of the base has {rows} rows. Where tokenizer_config.json is "
            f"missing, transformers makes up such pieces: fetch it, or save the tokenizer again with the base."
        )
    backend = tokenizer.backend_tokenizer
    added = backend.get_added_tokens_decoder()
    described = json.loads(backend.to_str())
    described["added_tokens"] = [token for token in described["added_tokens"] if token["id"] < rows]
    fitted = Tokenizer.from_str(json.dumps(described))
    left = [piece for piece, number in fitted.get_vocab(with_added_tokens=True).items() if number >= rows]
    if left:
        raise BaseError(
            f"the tokenizer in {folder} has {len(left):,} pieces that the base has no embedding for (it has {rows} "
            f"rows), such as {in_short(left)}: it is the tokenizer of another base. Put the right one there."
        )
    for name in NAMED:
        if getattr(tokenizer, name, None) in beyond:
            setattr(tokenizer, name, None)
    tokenizer._tokenizer = fitted
    words = [piece for piece, number in beyond.items() if not added[number].special]
    if words:
        warnings.warn(
            f"the tokenizer in {folder} has {len(words):,} added words that the base has no embedding for (it has "
            f"{rows} rows): {in_short(words)}. They are cut into other pieces, as before they were added. For pieces "
            f"of their own, resize the embedding (model.resize_token_embeddings), train it, and save both.",
            stacklevel=3,
        )
