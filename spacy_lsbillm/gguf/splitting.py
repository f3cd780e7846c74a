"""How the tokenizers of known models split a text into words before they cut them into pieces.

A GGUF file only names it (`tokenizer.ggml.pre`); the meaning of the name is in the models' own tokenizer.json, and in
llama.cpp.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import Regex, normalizers, pre_tokenizers

from ..errors import BaseError

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = (
    CONTRACTIONS + r"|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# An upper-case letter begins a new word.
CASES = (
    r"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]*[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]+{end}|"
    r"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]+[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]*{end}|"
    r"{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BETWEEN_STOPS = r" ?[^(\s|.,!?…。，、।۔،)]+"  # noqa: RUF001


@dataclass(frozen=True)
class Splitting:
    """How a text is split into words.

    pre_tokenizer (Callable): Creates the pre-tokenizer.
    composed (bool): Whether letters and accents are composed first (Unicode's NFC).
    whole_words (bool): Whether a word that is a piece is used as such, whatever the merges say.
    start (bool): Whether a start token is added if the file does not say.
    """

    pre_tokenizer: Callable[[], Any]
    composed: bool = False
    whole_words: bool = False
    start: bool = False

    def normalizer(self) -> Any:
        """The normalizer; None if the text is not changed."""
        return normalizers.NFC() if self.composed else None


def _gpt2(*before: Any) -> Callable[[], Any]:
    """GPT-2's own expression, which is built in."""

    def make() -> Any:
        last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        return pre_tokenizers.Sequence([*before, last]) if before else last

    return make


def _by(expression: str) -> Callable[[], Any]:
    def make() -> Any:
        split = pre_tokenizers.Split(Regex(expression), "isolated")
        return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])

    return make


def _falcon() -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Punctuation("contiguous"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            pre_tokenizers.Digits(individual_digits=False),
            pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
        ]
    )


GPT2 = Splitting(_gpt2())
SINGLE_DIGITS = Splitting(_gpt2(pre_tokenizers.Digits(individual_digits=True)))
LLAMA3 = Splitting(_by(WORDS.format(digits=r"\p{N}{1,3}")), whole_words=True, start=True)
QWEN2 = Splitting(_by(WORDS.format(digits=r"\p{N}")), composed=True)
BLOOM = Splitting(_by(BETWEEN_STOPS))

SPLITTINGS = {
    "gpt-2": GPT2,
    "phi-2": GPT2,
    "mpt": GPT2,
    "olmo": GPT2,
    "jais": GPT2,
    "exaone4": GPT2,
    "granite-docling": GPT2,
    "smollm": SINGLE_DIGITS,
    "starcoder": SINGLE_DIGITS,
    "refact": SINGLE_DIGITS,
    "codeshell": SINGLE_DIGITS,
    "exaone": SINGLE_DIGITS,
    "minerva-7b": SINGLE_DIGITS,
    "command-r": Splitting(SINGLE_DIGITS.pre_tokenizer, composed=True),
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
    "falcon3": LLAMA3,
    "lfm2": LLAMA3,
    "dbrx": Splitting(LLAMA3.pre_tokenizer),
    "smaug-bpe": Splitting(LLAMA3.pre_tokenizer),
    "glm4": Splitting(LLAMA3.pre_tokenizer),
    "chatglm-bpe": Splitting(LLAMA3.pre_tokenizer),
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "megrez": QWEN2,
    "stablelm2": Splitting(QWEN2.pre_tokenizer),
    "tekken": Splitting(_by(CASES.format(digits=r"\p{N}", end="")), whole_words=True, start=True),
    "gpt-4o": Splitting(_by(CASES.format(digits=r"\p{N}{1,3}", end=CONTRACTIONS + "?"))),
    "llama4": Splitting(_by(CASES.format(digits=r"\p{N}{1,3}", end=CONTRACTIONS + "?"))),
    "falcon": Splitting(_falcon),
    "bloom": BLOOM,
    "gpt3-finnish": BLOOM,
    "poro-chat": BLOOM,
}


def splitting_of(name: str | None, file: str) -> Splitting:
    """The splitting that a file's `tokenizer.ggml.pre` names.

    file (str): The file's name, for the message.
    RAISES (BaseError): It is missing or unknown, so that pieces would differ from those in training.
    """
    if name not in SPLITTINGS:
        raise BaseError(
            f"{file} splits texts into words by tokenizer.ggml.pre = {name!r}, which is not known here: its pieces "
            f"would differ from those in training. Known are: {', '.join(sorted(SPLITTINGS))}. Fetch a newer file of "
            f"the model, or its original in Hugging Face's format."
        )
    return SPLITTINGS[name]
