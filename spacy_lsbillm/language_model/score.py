"""How well a causal language model predicts text, in nats per token and in bits per byte."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import PreTrainedModel

from ..errors import SettingError
from .text import read_documents

# The maximum of positions times vocabulary in a forward pass, as the logits take most of the memory.
LOGITS_PER_PASS = 2**25


@dataclass(frozen=True)
class Score:
    """The loss of a model on a text.

    nats (float): The sum over all predicted tokens.
    tokens (int): How many tokens were predicted, including those that end a document.
    bytes (int): The length of the text in UTF-8.
    """

    nats: float
    tokens: int
    bytes: int

    @property
    def nats_per_token(self) -> float:
        """The mean loss per predicted token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """The perplexity per token; comparable only between models with the same tokenizer."""
        return math.exp(self.nats_per_token)

    @property
    def bits_per_byte(self) -> float:
        """The loss per byte of text, comparable between models with any tokenizers."""
        return self.nats / math.log(2) / self.bytes


@dataclass(frozen=True)
class Window:
    """A stretch of text that is read at once: tokens `start` to `end`, of which those from `first` on are scored."""

    start: int
    first: int
    end: int


def windows(n_tokens: int, room: int, overlap: int, first: int) -> Iterator[Window]:
    """Cover the tokens from `first` on with windows, so that each token is scored once.

    room (int): Tokens per window.
    overlap (int): Tokens before the scored ones of a window, as far as the text has them.
    """
    start = 0
    while first < n_tokens:
        end = min(n_tokens, start + room)
        yield Window(start, first, end)
        first = end
        start = max(0, end - overlap)


def score_text(
    model: PreTrainedModel,
    tokenizer: Any,
    files: Sequence[Path],
    *,
    length: int,
    overlap: int = 0,
    label: str = "scoring",
) -> Score:
    """Score documents in windows, as one text with the tokenizer's end token between them.

    model (PreTrainedModel): A causal LM in evaluation mode.
    tokenizer (PreTrainedTokenizerFast): Its tokenizer. A start token, if it has one, begins each window.
    length (int): Positions per window.
    overlap (int): Tokens of context that a window repeats from the one before it, without scoring them.
    RAISES (SettingError): The text is empty or the overlap leaves no room.
    """
    if length < 2 or not 0 <= overlap < length - 1:
        raise SettingError(f"overlap = {overlap} is not allowed with windows of {length}: use 0 to {length - 2}.")
    stream, n_bytes = _read(tokenizer, files)
    device = next(model.parameters()).device
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    if start is not None:
        lead, context, first = [start], overlap, 0
    else:
        # The first token is predicted from the end of a document before it; others have the token before them.
        stream = np.concatenate([np.array([] if end is None else [end], dtype=np.int64), stream])
        lead, context, first = [], max(1, overlap), 1
    room = length + 1 - len(lead)
    nats, count = 0.0, 0
    rows = max(1, LOGITS_PER_PASS // (length * model.config.vocab_size))
    with torch.inference_mode(), tqdm(total=len(stream) - first, desc=label, unit=" tokens", leave=False) as bar:
        for batch in _alike(windows(len(stream), room, context, first), rows):
            ids = torch.from_numpy(np.stack([[*lead, *stream[w.start : w.end]] for w in batch])).to(device)
            scored = batch[0].end - batch[0].first
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits[:, -scored:].flatten(0, 1)
            targets = ids[:, -scored:].flatten()
            nats += nn.functional.cross_entropy(logits.float(), targets, reduction="sum").item()
            count += len(targets)
            bar.update(len(targets))
    return Score(nats, count, n_bytes)


def _alike(all_windows: Iterator[Window], rows: int) -> Iterator[list[Window]]:
    """Group neighbouring windows of the same size and context, at most `rows` each: they need no padding."""
    for _, alike in groupby(all_windows, lambda w: (w.end - w.start, w.first - w.start)):
        while batch := list(islice(alike, rows)):
            yield batch


def _read(tokenizer: Any, files: Sequence[Path]) -> tuple[np.ndarray, int]:
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    parts, n_bytes = [], 0
    for document in read_documents(files):
        ids = tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]
        parts.append(np.array([*ids, *end], dtype=np.int64))
        n_bytes += len(document.encode("utf8"))
    if not n_bytes:
        raise SettingError(f"the text {', '.join(str(path) for path in files)} is empty: there is nothing to score.")
    return np.concatenate(parts), n_bytes
