"""Text as one array of token ids in a file that is mapped into memory."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import PreTrainedTokenizerFast

from ..backbone.tokenizer import load_tokenizer
from ..errors import SettingError
from ..files import replaced_file

END, MASK = "<|endoftext|>", "<|mask|>"
DOCUMENTS_PER_BATCH = 512


def train_tokenizer(documents: Iterator[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer without a start token, like those of GPT-2 and Qwen.

    RAISES (SettingError): The text is empty, or has too few different words for that number of entries.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END, MASK], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(documents, trainer)
    reached = tokenizer.get_vocab_size()
    if reached < vocab_size:
        raise SettingError(
            f"tokenizer.vocab_size = {vocab_size} is more than the text supports: it gives {reached} entries. "
            f"Use at most {reached}, or more text."
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, mask_token=MASK)


def take_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Load an existing tokenizer, and add a mask token if it has none.

    RAISES (BaseError, SettingError): There is none that can be read, or it has no end token.
    """
    tokenizer = load_tokenizer(folder)
    check_end(tokenizer, folder)
    if tokenizer.mask_token_id is None:
        tokenizer.add_special_tokens({"mask_token": MASK})
    return tokenizer


def check_end(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Check that a tokenizer has an end token.

    RAISES (SettingError): It has none.
    """
    if tokenizer.eos_token_id is None:
        raise SettingError(f"the tokenizer in {folder} has no end token, which separates documents. Set its eos_token.")


def write_tokens(documents: Iterator[str], tokenizer: PreTrainedTokenizerFast, path: Path, source: str) -> None:
    """Write all documents as one array, each between the start token, if there is one, and the end token.

    source (str): The name of the text in the progress bar and in messages.
    RAISES (SettingError): There is no text.
    """
    dtype, end = token_dtype(tokenizer), tokenizer.eos_token_id
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    written = 0
    with replaced_file(path) as partial:
        with partial.open("wb") as file, tqdm(desc=f"tokenising {source}", unit=" documents") as bar:
            for batch in _batches(documents):
                for ids in tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]:
                    # numpy's tofile does not report a full disk.
                    file.write(np.array([*begin, *ids, end], dtype=dtype).tobytes())
                written += len(batch)
                bar.update(len(batch))
        if not written:
            raise SettingError(f"the {source} text is empty.")


def token_dtype(tokenizer: PreTrainedTokenizerFast) -> type:
    """The smallest integer type that can hold every id."""
    return np.uint16 if len(tokenizer) <= 2**16 else np.uint32


def _batches(documents: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for document in documents:
        batch.append(document)
        if len(batch) == DOCUMENTS_PER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


class TokenArray:
    """Token ids on disk, in blocks of equal length.

    path (Path): What `write_tokens` wrote.
    dtype (type): The type of its entries.
    length (int): Tokens per block.
    source (str), setting (str): For messages: which text it is, and which setting decides the length.
    RAISES (SettingError): It is shorter than one block.
    """

    def __init__(self, path: Path, dtype: type, length: int, source: str, setting: str = "model.positions") -> None:
        self.tokens = np.memmap(path, dtype=dtype, mode="r")
        self.length = length
        # Each block is followed by the token that its last one predicts.
        self.n_blocks = (len(self.tokens) - 1) // length
        if self.n_blocks < 1:
            raise SettingError(
                f"the {source} text has {len(self.tokens)} tokens, fewer than one block of {length}. Give more text, "
                f"or set {setting} lower."
            )

    def blocks(self, numbers: np.ndarray) -> Tensor:
        """Blocks by number, each with the token after it: shape (len(numbers), length + 1)."""
        rows = [self.tokens[i * self.length : (i + 1) * self.length + 1] for i in numbers]
        return torch.from_numpy(np.stack(rows).astype(np.int64))

    def batch(self, step: int, size: int, seed: int) -> Tensor:
        """The blocks of an optimizer step. Each round over the text has every block once, in its own order."""
        wanted = range(step * size, (step + 1) * size)
        order = [round_order(self.n_blocks, seed, i // self.n_blocks)[i % self.n_blocks] for i in wanted]
        return self.blocks(np.array(order))


@lru_cache(maxsize=2)
def round_order(n_blocks: int, seed: int, turn: int) -> np.ndarray:
    """The order of the blocks in a round, which depends on its number and the seed alone.

    A run can therefore be continued at any step.
    """
    return np.random.default_rng([seed, turn]).permutation(n_blocks)
