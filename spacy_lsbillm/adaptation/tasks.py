"""What a base is asked while it is adapted: rows of text in which documents stay apart, and what is to be predicted."""

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
    """Rows with what is asked of them.

    ids (Tensor): What the model reads, shape (rows, length).
    positions (Tensor): The place of each piece in its document, the same shape.
    chosen (Tensor): True for the states that are asked, the same shape.
    answers (Tensor): The pieces that they should predict, row by row.
    """

    ids: Tensor
    positions: Tensor
    chosen: Tensor
    answers: Tensor


# (blocks, seed) -> the question. Blocks have the shape (rows, length + 1).
Task = Callable[[Tensor, int], Question]


def task_of(objective: str, share: float, mask_id: int, end: int, special: Sequence[int]) -> Task:
    """The task of an objective.

    share (float), mask_id (int): How much is masked, and by which piece.
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
    """The place of each piece in its document, or in the part of it that is in the row; shape (rows, length)."""
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    begins = torch.zeros_like(ids, dtype=torch.bool)
    begins[:, 1:] = ids[:, :-1] == end
    return places - (places * begins).cummax(dim=1).values


def drawn(allowed: Tensor, share: float, seed: int) -> Tensor:
    """Draw a share of the allowed places of each row, at least one if there is one.

    allowed (Tensor): Shape (rows, length).
    RETURNS (Tensor): The same shape, true for those drawn.
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
        ids, real, chosen = one_a_row(ids, positions, chosen)
        logits = backbone.logits(ids, real, None, chosen)
    # Rows without a place that may be masked: nothing is asked, and nothing learnt.
    total = torch.nn.functional.cross_entropy(logits.float(), question.answers, reduction="sum")
    return total / max(1, len(question.answers))


def one_a_row(ids: Tensor, positions: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give each document a row of its own, padded on the right, for families that cannot tell them apart in one.

    RETURNS (tuple): Pieces, 1 for those that are no padding, and the chosen ones, in the same order as before.
    """
    place = positions.flatten()
    row = (place == 0).cumsum(0) - 1
    shape = int(row[-1]) + 1, int(place.max()) + 1
    apart, real = ids.new_zeros(shape), ids.new_zeros(shape)
    where = chosen.new_zeros(shape)
    apart[row, place], real[row, place], where[row, place] = ids.flatten(), 1, chosen.flatten()
    return apart, real, where


def mask_piece(tokenizer: PreTrainedTokenizerFast, named: str | None) -> int:
    """The piece that stands for masked ones: the one named, else the tokenizer's mask token, else "_" as LLM2Vec has it
    for LLaMA, else the unknown token.

    RAISES (SettingError): The one named is none, or there is no such piece.
    """
    known = tokenizer.get_vocab()
    if named is not None:
        if named not in known:
            raise SettingError(f"mask_piece = {named!r} is no piece of the base's tokenizer, such as {BLANK!r}.")
        return int(known[named])
    for piece in (tokenizer.mask_token, BLANK, tokenizer.unk_token):
        if piece is not None and piece in known:
            return int(known[piece])
    raise SettingError(
        f"the base's tokenizer has no mask token, no piece {BLANK!r} and no unknown token. Name one with mask_piece."
    )
