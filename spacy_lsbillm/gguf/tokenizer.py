"""Creating a fast tokenizer from a GGUF file's vocabulary, its own merges or scores, and its special pieces.

transformers' converters depend on the model's architecture, not on the file: SmolLM2, a "llama", would get a start
token that it was never trained with, and numbers would be cut otherwise than in training.
"""

from enum import IntEnum
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from ..errors import BaseError
from .file import GGUFFile
from .splitting import Splitting, splitting_of

BYTE_LEVEL, SENTENCE_PIECE = "gpt2", "llama"
# Texts in many scripts, with digits, emoji of several characters and white space; each composed (NFC).
SAMPLES = (
    "Hello world, it's 2024 and 12345 cats! We'LL see...",
    "Zürich, façade, naïve, Øresund, ¿qué?",
    "Москва слезам не верит",
    "Γειά σου Κόσμε",  # noqa: RUF001
    "東京は日本の首都です。北京欢迎你",
    "안녕하세요 세계",
    "مرحبا بالعالم، שלום עולם",
    "नमस्ते दुनिया, สวัสดีชาวโลก",
    "😀👍🏽👩\u200d👩\u200d👧 🇨🇭",
    "two  spaces,\n\na\ttab   and a line\nf(x) = {'a': [1, 2.5e-3]};",
)
SHOWN = 60


class Kind(IntEnum):
    """The values of `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def make_tokenizer(file: GGUFFile) -> PreTrainedTokenizerFast:
    """Create the tokenizer of a model.

    RAISES (BaseError): The file has none, its kind is not supported, or it does not reproduce texts.
    """
    tokens = _tokens(file)
    model = file.metadata.get("tokenizer.ggml.model")
    if model == BYTE_LEVEL:
        splitting = splitting_of(file.metadata.get("tokenizer.ggml.pre"), file.name)
        tokenizer, start = _byte_level(file, tokens, splitting), splitting.start
    elif model == SENTENCE_PIECE:
        tokenizer, start = _sentence_piece(file, tokens), True
    else:
        raise BaseError(
            f"{file.name} has a tokenizer of the kind {model!r}, which is not read: {BYTE_LEVEL!r} (byte-level BPE) "
            f"and {SENTENCE_PIECE!r} (SentencePiece BPE) are. Fetch the original in Hugging Face's format."
        )
    kinds = _kinds(file, tokens)
    tokenizer.add_special_tokens(_added(tokens, kinds, (Kind.CONTROL, Kind.UNKNOWN), special=True))
    tokenizer.add_tokens(_added(tokens, kinds, (Kind.USER_DEFINED,), special=False))
    special = {name: _special(file, key, tokens) for name, key in SPECIAL.items()}
    first = special["bos_token"] if file.metadata.get("tokenizer.ggml.add_bos_token", start) else None
    last = special["eos_token"] if file.metadata.get("tokenizer.ggml.add_eos_token", False) else None
    _add_ends(tokenizer, first, last)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        padding_side="right",
        add_bos_token=first is not None,
        add_eos_token=last is not None,
        **{name: token for name, token in special.items() if token is not None},
    )
    length = file.value("context_length")
    if length:
        wrapped.model_max_length = length
    template = file.metadata.get("tokenizer.chat_template")
    if template:
        wrapped.chat_template = template
    check_samples(wrapped, file.name)
    return wrapped


SPECIAL = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}


def check_samples(tokenizer: Any, name: str) -> None:
    """Check that texts can be reproduced from their pieces.

    RAISES (BaseError): A sample text cannot.
    """
    for sample in SAMPLES:
        decoded = tokenizer.decode(tokenizer(sample)["input_ids"], skip_special_tokens=True)
        if decoded != sample:
            raise BaseError(
                f"the tokenizer of {name} does not reproduce texts: {sample[:SHOWN]!r} became {decoded[:SHOWN]!r}. "
                f"Fetch a newer file of the model, or its original in Hugging Face's format."
            )


def _tokens(file: GGUFFile) -> list[str]:
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not tokens:
        raise BaseError(
            f"{file.name} holds no tokenizer (no tokenizer.ggml.tokens). Fetch a file of the model that has one."
        )
    tokens = [token or f"[EMPTY_{number}]" for number, token in enumerate(tokens)]
    if len(set(tokens)) != len(tokens):
        raise BaseError(f"the vocabulary of {file.name} has the same piece twice: fetch the file again.")
    return tokens


def _kinds(file: GGUFFile, tokens: list[str]) -> list[int]:
    kinds = file.metadata.get("tokenizer.ggml.token_type")
    if kinds is None:
        ends = {_special(file, key, tokens) for key in SPECIAL.values()}
        return [Kind.CONTROL if token in ends else Kind.NORMAL for token in tokens]
    if len(kinds) != len(tokens):
        raise BaseError(f"{file.name} has {len(tokens)} pieces and {len(kinds)} kinds of them: fetch it again.")
    return list(kinds)


def _special(file: GGUFFile, key: str, tokens: list[str]) -> str | None:
    number = file.metadata.get(f"tokenizer.ggml.{key}")
    if number is None:
        return None
    if not 0 <= number < len(tokens):
        raise BaseError(
            f"{file.name}: tokenizer.ggml.{key} = {number} is beyond the {len(tokens)} pieces of its vocabulary. Fetch "
            f"a newer file of the model."
        )
    return tokens[number]


def _byte_level(file: GGUFFile, tokens: list[str], splitting: Splitting) -> Tokenizer:
    merges = file.metadata.get("tokenizer.ggml.merges")
    if merges is None:
        raise BaseError(f"{file.name} has no tokenizer.ggml.merges: fetch a newer file of the model.")
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    try:
        # Characters without a piece are dropped, as in llama.cpp; nearly every byte has a piece.
        model = models.BPE(_numbers(tokens), pairs, ignore_merges=splitting.whole_words)
    except Exception as error:
        # The library raises bare exceptions.
        raise BaseError(f"the merges of {file.name} do not fit its vocabulary ({error}): fetch it again.") from error
    tokenizer = Tokenizer(model)
    normalizer = splitting.normalizer()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitting.pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_piece(file: GGUFFile, tokens: list[str]) -> Tokenizer:
    scores = file.metadata.get("tokenizer.ggml.scores")
    if scores is None or len(scores) != len(tokens):
        raise BaseError(f"{file.name} has no tokenizer.ggml.scores for its pieces: fetch a newer file of the model.")
    normal = [kind == Kind.NORMAL for kind in _kinds(file, tokens)]
    merges = merges_of(tokens, scores, normal)
    unknown = _special(file, "unknown_token_id", tokens)
    tokenizer = Tokenizer(models.BPE(_numbers(tokens), merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    spaced = file.metadata.get("tokenizer.ggml.add_space_prefix", True)
    steps = [normalizers.Prepend("▁")] if spaced else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if spaced else []),
        ]
    )
    return tokenizer


def merges_of(tokens: list[str], scores: list[float], normal: list[bool]) -> list[tuple[str, str]]:
    """The merges that SentencePiece performs: any two neighbours whose union is a piece, the best score first.

    tokens (list[str]), scores (list[float]), normal (list[bool]): Each piece, its score, and whether merging may create
        it.
    """
    numbers = {token: number for number, token in enumerate(tokens) if normal[number]}
    merges = []
    for token, number in numbers.items():
        for cut in range(1, len(token)):
            left, right = numbers.get(token[:cut]), numbers.get(token[cut:])
            if left is not None and right is not None:
                merges.append((-scores[number], number, left, right))
    merges.sort()
    return [(tokens[left], tokens[right]) for _, _, left, right in merges]


def _added(tokens: list[str], kinds: list[int], wanted: tuple[Kind, ...], special: bool) -> list[AddedToken]:
    return [
        AddedToken(token, normalized=False, special=special)
        for token, kind in zip(tokens, kinds, strict=True)
        if kind in wanted
    ]


def _numbers(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}


def _add_ends(tokenizer: Tokenizer, first: str | None, last: str | None) -> None:
    if first is None and last is None:
        return
    before, after = ([token] if token else [] for token in (first, last))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *after, *(f"{token}:1" for token in before), "$B:1", *(f"{token}:1" for token in after)],
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in {first, last} if token],
    )
