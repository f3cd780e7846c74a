"""What a base must predict while it is adapted, from rows of text in which documents are separate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ..backbone import Backbone
from ..errors import SettingError
from .settings import CAUSAL, MLM, MNTP

BLANK = "_"


@dataclass(frozen=True)
class Question:
    """Rows with the pieces to predict.

    ids (Tensor): The input of the model, shape (rows, length).
    positions (Tensor): The position of each piece in its document, shape (rows, length).
    chosen (Tensor): True for the states that must predict a piece, shape (rows, length).
    answers (Tensor): The pieces that they should predict, row by row.
    """

    ids: Tensor
    positions: Tensor
    chosen: Tensor
    answers: Tensor


# (blocks, seed) -> the question. Blocks have the shape (rows, length + 1).
Task = Callable[[Tensor, int], Question]


def task_of(objective: str, share: float, mask_id: int, end: int, special: Sequence[int]) -> Task:
    """Create the task of an objective.

    share (float), mask_id (int): The fraction of masked pieces, and the piece that replaces them.
    end (int): The piece that ends a document.
    special (Sequence[int]): Pieces that are never masked.
    """

    def causal(blocks: Tensor, seed: int) -> Question:
        ids = blocks[:, :-1]
        chosen = ids != end
        return Question(ids, positions_of(ids, end), chosen, blocks[:, 1:][chosen])

    def masked(blocks: Tensor, seed: int) -> Question:
        ids = blocks[:, :-1]
        positions = positions_of(ids, end)
        allowed = ~torch.isin(ids, torch.tensor(special, dtype=ids.dtype, device=ids.device))
        if objective == MNTP:
            # The first piece of a document has no state before it.
            allowed &= positions > 0
        hidden = drawn(allowed, share, seed)
        asked = hidden if objective == MLM else hidden.roll(-1, dims=1)
        return Question(ids.masked_fill(hidden, mask_id), positions, asked, ids[hidden])

    return causal if objective == CAUSAL else masked


def positions_of(ids: Tensor, end: int) -> Tensor:
    """The position of each piece in its document, or in the part of it that is in the row; shape (rows, length)."""
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    begins = torch.zeros_like(ids, dtype=torch.bool)
    begins[:, 1:] = ids[:, :-1] == end
    return places - (places * begins).cummax(dim=1).values


def drawn(allowed: Tensor, share: float, seed: int) -> Tensor:
    """Draw a fraction of the allowed positions of each row, at least one if there is one.

    allowed (Tensor): Boolean, shape (rows, length).
    RETURNS (Tensor): Boolean, the same shape.
    """
    # Drawn on the CPU, so that devices agree.
    draws = torch.rand(allowed.shape, generator=torch.Generator().manual_seed(seed)).to(allowed.device)
    order = draws.masked_fill(~allowed, 2.0).argsort(dim=1).argsort(dim=1)
    counts = allowed.sum(1, keepdim=True)
    wanted = (counts * share).round().clamp(min=1)
    return (order < wanted) & allowed


def nats(backbone: Backbone, question: Question) -> Tensor:
    """Mean cross-entropy of the answers."""
    ids, chosen, positions = question.ids, question.chosen, question.positions
    if backbone.packs:
        logits = backbone.logits(ids, torch.ones_like(ids), positions, chosen)
    else:
        ids, real, chosen = one_per_row(ids, positions, chosen)
        logits = backbone.logits(ids, real, None, chosen)
    # Rows without a position that may be masked: nothing to predict, and nothing to learn.
    total = torch.nn.functional.cross_entropy(logits.float(), question.answers, reduction="sum")
    return total / max(1, len(question.answers))


def one_per_row(ids: Tensor, positions: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give each document its own row, padded on the right, for families that cannot separate documents in a row.

    RETURNS (tuple): Pieces, 1 for those that are not padding, and the chosen ones, in the same order as before.
    """
    place = positions.flatten()
    row = (place == 0).cumsum(0) - 1
    shape = int(row[-1]) + 1, int(place.max()) + 1
    apart, real = ids.new_zeros(shape), ids.new_zeros(shape)
    where = chosen.new_zeros(shape)
    apart[row, place], real[row, place], where[row, place] = ids.flatten(), 1, chosen.flatten()
    return apart, real, where


def mask_piece(tokenizer: PreTrainedTokenizerFast, named: str | None) -> int:
    """The piece that replaces masked pieces.

    It is the one named, else the tokenizer's mask token, else "_" as LLM2Vec uses for LLaMA, else the unknown token.

    RAISES (SettingError): The named one is not a piece, or there is no such piece.
    """
    known = tokenizer.get_vocab()
    if named is not None:
        if named not in known:
            raise SettingError(f"mask_piece = {named!r} is not a piece of the base's tokenizer, such as {BLANK!r}.")
        return int(known[named])
    for piece in (tokenizer.mask_token, BLANK, tokenizer.unk_token):
        if piece is not None and piece in known:
            return int(known[piece])
    raise SettingError(
        f"the base's tokenizer has no mask token, no piece {BLANK!r} and no unknown token. Name one with mask_piece."
    )
