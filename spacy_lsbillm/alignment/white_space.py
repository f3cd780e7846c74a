"""What the tokenizer is shown of white space.

A word's pieces depend on what stands before it: most tokenizers put the blank into the piece, so that a word behind a
line break, a tab or nothing has other pieces than in a sentence. Where training never had such text, the vectors of
all words around it are then others, too. So a tokenizer may be shown each run of white space in one form.
"""

import re
import warnings
from dataclasses import dataclass

import numpy as np
from spacy.tokens import Doc

from ..values import check_choice

CHOICES = TEXT, LINES, BLANK = "text", "lines", "blank"
# Of new pipelines, and of those that were trained before there was a choice.
DEFAULT, FORMER = LINES, TEXT
# U+3000 is the last of Unicode's white space.
LAST = 0x3000
# Which of the characters up to that, and one more for all others, are white space, and line breaks; shape (LAST + 2,).
WHITE_SPACE = np.array([chr(code).isspace() for code in range(LAST + 2)])
LINE_BREAKS = np.array([white and len(f"a{chr(code)}b".splitlines()) > 1 for code, white in enumerate(WHITE_SPACE)])
A_BLANK, A_LINE_BREAK, RETURN = ord(" "), ord("\n"), ord("\r")
# As many as mean something: a new line, and a new paragraph.
MOST_BREAKS = 2
# Anything but single blanks between words.
UNUSUAL = re.compile(r"^\s|\s\s|[^\S ]|\s$")


@dataclass(frozen=True)
class Shown:
    """A text as the tokenizer is shown it.

    text (str): What the tokenizer gets.
    places (ndarray | None): Where each of its characters begins in the original text, and the end of that; shape
        (characters + 1,). White space at the ends, which it lacks, so belongs to its first and its last character.
        None: it is the original text.
    """

    text: str
    places: np.ndarray | None = None


def check_white_space(choice: str | None) -> None:
    """RAISES (SettingError): There is no such choice."""
    if choice is not None:
        check_choice("white_space", choice, CHOICES, also="; or null")


def trained_white_space(asked: str | None, recorded: str | None) -> str:
    """What a trained pipeline's tokenizer is shown: what it was in training, unless the config says otherwise, which is
    warned of.

    asked (str | None): By the config.
    recorded (str | None): In training; None: there was no choice then.
    RAISES (SettingError): The record has another choice than this version knows.
    """
    check_white_space(recorded)
    before = recorded or FORMER
    if asked not in (None, before):
        warnings.warn(
            f"this pipeline was trained with white_space = {before!r}, and is loaded with {asked!r}: results differ "
            f"where a text has more than single blanks between its words.",
            stacklevel=3,
        )
    return asked or before


def is_word(doc: Doc) -> np.ndarray:
    """Which tokens are not white space, shape (tokens,), boolean."""
    return doc.to_array("IS_SPACE") == 0


def code_points(text: str) -> np.ndarray:
    """The characters of a text as numbers, shape (characters,)."""
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def is_white(codes: np.ndarray) -> np.ndarray:
    """Which characters are white space, shape (characters,), boolean."""
    return WHITE_SPACE[np.minimum(codes, LAST + 1)]


def show(text: str, choice: str) -> Shown:
    """What the tokenizer gets of a text.

    choice (str): "text": the text as it is. "blank": each run of white space between two words as one blank, and none
        at the ends of the text unless it is nothing else. "lines": the same, but a run with a line break in it as that
        and a blank, or two line breaks and a blank if it has more.
    """
    if choice == TEXT or not UNUSUAL.search(text):
        return Shown(text)
    codes = code_points(text)
    white = is_white(codes)
    words = np.flatnonzero(~white)
    if not len(words):
        return Shown(" ", np.array([0, len(codes)]))
    begins = white & np.append(True, ~white[:-1])
    kept = ~white | begins
    kept[: words[0]] = kept[words[-1] + 1 :] = False
    places = np.flatnonzero(kept)
    ends = np.append(places[1:], len(codes))
    # Each place turns into one character, but a run with line breaks into these and a blank.
    breaks = _line_breaks(codes, begins)[places] if choice == LINES else np.zeros(len(places), dtype=np.int64)
    sizes = breaks + 1
    number = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    last = number == np.repeat(breaks, sizes)
    shown = np.where(white[places], A_BLANK, codes[places]).repeat(sizes)
    shown[~last] = A_LINE_BREAK
    # The line breaks have the characters of the run, and the blank behind them has none.
    begin = np.where(last & (number > 0), ends.repeat(sizes), places.repeat(sizes) + number)
    begin[0] = 0
    return Shown(shown.astype("<u4").tobytes().decode("utf-32-le"), np.append(begin, ends[-1]))


def _line_breaks(codes: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """How many line breaks a run of white space is shown with, at its first character; 0 elsewhere.

    codes (ndarray), begins (ndarray): All characters, and which of them begin a run; shape (characters,).
    """
    broken = LINE_BREAKS[np.minimum(codes, LAST + 1)]
    # A carriage return and the line feed behind it are one.
    broken[1:] &= ~((codes[1:] == A_LINE_BREAK) & (codes[:-1] == RETURN))
    run = np.cumsum(begins)
    counts = np.bincount(run[broken], minlength=run[-1] + 1)
    return np.where(begins, np.minimum(counts[run], MOST_BREAKS), 0)
