"""Small tokenizers of the kinds that decoder-only models have, made here, and real ones if they are available."""

import json
from functools import cache

from places import REPOSITORY
from tiny import TEXTS, make_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from spacy_lsbillm.backbone.tokenizer import load_tokenizer

# Downloaded tokenizers are beside the checkout, if there are any.
REAL_FOLDER = REPOSITORY.parent / "shared" / "tokenizers"
REAL = ["gpt2", "mistral-v1", "qwen2.5"]
SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
START = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def _byte_level(normalizer=None, spaces: bool = False, **offsets) -> PreTrainedTokenizerFast:
    """Like GPT-NeoX and Qwen: a normaliser, and added pieces of several spaces."""
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS * 4, trainers.BpeTrainer(vocab_size=360, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    if spaces:
        tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in (2, 3, 4)])
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, **offsets)
    return _fast(tokenizer)


def _byte_fallback(normalizer, pre_tokenizer=None) -> PreTrainedTokenizerFast:
    """SentencePiece's BPE like LLaMA 2, Mistral and Gemma: text that is not in the vocabulary is split into bytes."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(TEXTS * 4, trainers.BpeTrainer(vocab_size=120, special_tokens=SPECIAL))
    merges = _merges(trained)
    pieces = [*SPECIAL, *BYTES, *sorted(set(trained.get_vocab()) - set(SPECIAL))]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: number for number, piece in enumerate(pieces)},
            merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.post_processor = START
    tokenizer.add_special_tokens(SPECIAL)
    return _fast(tokenizer)


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges]


def _unigram(normalizer) -> PreTrainedTokenizerFast:
    """Like T5: normalised text, a start and an end token, and an unknown piece."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        TEXTS * 4, trainers.UnigramTrainer(vocab_size=90, special_tokens=SPECIAL, unk_token="<unk>")
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return _fast(tokenizer)


def _words_only() -> PreTrainedTokenizerFast:
    """No spaces at all, and an unknown piece."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(TEXTS * 4, trainers.BpeTrainer(vocab_size=120, special_tokens=SPECIAL))
    tokenizer.post_processor = START
    return _fast(tokenizer)


def _limited() -> PreTrainedTokenizerFast:
    """A tokenizer whose file requests truncation and padding, as those of many models do."""
    tokenizer = make_tokenizer(start=True).backend_tokenizer
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


NFC, NFKC, Chain = normalizers.NFC, normalizers.NFKC, normalizers.Sequence
UNDERLINED = normalizers.Replace(" ", "▁")
MAKERS = {
    "byte-level": lambda: make_tokenizer(start=False),
    "byte-level, start token": lambda: make_tokenizer(start=True),
    "byte-level, truncation": _limited,
    "byte-level, NFC": lambda: _byte_level(NFC(), trim_offsets=False),
    "byte-level, NFC, trimmed": lambda: _byte_level(NFC(), spaces=True, trim_offsets=True),
    "byte fallback, prefix": lambda: _byte_fallback(Chain([normalizers.Prepend("▁"), UNDERLINED])),
    "byte fallback, metaspace": lambda: _byte_fallback(
        None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    ),
    "byte fallback, Gemma": lambda: _byte_fallback(UNDERLINED, pre_tokenizers.Split(" ", "merged_with_previous")),
    "byte fallback, NFKC": lambda: _byte_fallback(Chain([NFKC(), normalizers.Prepend("▁"), UNDERLINED])),
    "unigram, NFKC": lambda: _unigram(Chain([NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])),
    "words, unknown": _words_only,
}
# These tokenizers drop some characters on purpose, which then have no piece.
LOSSY = {"unigram, accents stripped": lambda: _unigram(Chain([normalizers.NFD(), normalizers.StripAccents()]))}


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer by its kind, or by the name of a real one."""
    return load_tokenizer(REAL_FOLDER / kind) if kind in REAL else {**MAKERS, **LOSSY}[kind]()
