"""How white space is shown to the tokenizer.

The pieces of a word depend on what precedes it: most tokenizers include the blank in the piece, so that a word after a
line break, a tab or nothing has other pieces than within a sentence. If the training data have no such text, the
vectors of all words around it differ, too. Therefore each run of white space can be shown to the tokenizer in one form.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from spacy.tokens import Doc

from ..values import check_choice

CHOICES = TEXT, LINES, BLANK = "text", "lines", "blank"
# The setting of new pipelines, and that of pipelines trained before the setting existed.
DEFAULT, FORMER = LINES, TEXT
# U+3000 is the last white space of Unicode.
LAST = 0x3000
# Whether each character up to that, and one more for all others, is white space, and a line break; shape (LAST + 2,).
WHITE_SPACE = np.array([chr(code).isspace() for code in range(LAST + 2)])
LINE_BREAKS = np.array([white and len(f"a{chr(code)}b".splitlines()) > 1 for code, white in enumerate(WHITE_SPACE)])
A_BLANK, A_LINE_BREAK, RETURN = ord(" "), ord("\n"), ord("\r")
# The maximum number of line breaks with a meaning: a new line, and a new paragraph.
MOST_BREAKS = 2


@dataclass(frozen=True)
class Shown:
    """A text as it is shown to the tokenizer.

    text (str): The text that the tokenizer receives.
    places (ndarray | None): Where each of its characters begins in the original text, and the end of that; shape
        (characters + 1,). White space that was removed from the ends belongs to its first and its last character.
        None: it is the original text.
    """

    text: str
    places: np.ndarray | None = None


def check_white_space(choice: str | None) -> None:
    """Validate the setting `white_space`.

    RAISES (SettingError): It is not one of the choices.
    """
    if choice is not None:
        check_choice("white_space", choice, CHOICES, also="; or null")


def trained_white_space(asked: str | None, recorded: str | None) -> str:
    """The setting for a trained pipeline: that of training, unless the config overrides it, which gives a warning.

    asked (str | None): The setting in the config.
    recorded (str | None): The setting in training; None: the setting did not exist then.
    RAISES (SettingError): The recorded setting is unknown to this version.
    """
    check_white_space(recorded)
    before = recorded or FORMER
    if asked not in (None, before):
        warnings.warn(
            f"this pipeline was trained with white_space = {before!r}, but is loaded with {asked!r}: results differ "
            f"where a text has more than single blanks between its words.",
            stacklevel=3,
        )
    return asked or before


def is_word(doc: Doc) -> np.ndarray:
    """Which tokens are not white space, shape (tokens,), boolean."""
    return doc.to_array("IS_SPACE") == 0


def code_points(text: str) -> np.ndarray:
    """The code points of a text, shape (characters,)."""
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def is_white(codes: np.ndarray) -> np.ndarray:
    """Which characters are white space, shape (characters,), boolean."""
    return WHITE_SPACE[np.minimum(codes, LAST + 1)]


def show(text: str, choice: str) -> Shown:
    """The text that the tokenizer receives.

    choice (str): "text": the text unchanged. "blank": each run of white space between two words as one blank, and none
        at the ends of the text unless it consists of nothing else. "lines": the same, but a run with a line break as a
        line break and a blank, or two line breaks and a blank if it has several.
    """
    # Usually there are only single blanks between words.
    if choice == TEXT or text == " ".join(text.split()):
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
    # Each run becomes one character, or line breaks and a blank if it contains line breaks.
    breaks = _line_breaks(codes, begins)[places] if choice == LINES else np.zeros(len(places), dtype=np.int64)
    sizes = breaks + 1
    number = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    last = number == np.repeat(breaks, sizes)
    shown = np.where(white[places], A_BLANK, codes[places]).repeat(sizes)
    shown[~last] = A_LINE_BREAK
    # The line breaks get the characters of the run, and the blank after them gets none.
    begin = np.where(last & (number > 0), ends.repeat(sizes), places.repeat(sizes) + number)
    begin[0] = 0
    return Shown(shown.astype("<u4").tobytes().decode("utf-32-le"), np.append(begin, ends[-1]))


def _line_breaks(codes: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """The number of line breaks with which a run of white space is shown, at its first character; 0 elsewhere.

    codes (ndarray), begins (ndarray): All characters, and whether they begin a run; shape (characters,).
    """
    broken = LINE_BREAKS[np.minimum(codes, LAST + 1)]
    # A carriage return followed by a line feed counts as one.
    broken[1:] &= ~((codes[1:] == A_LINE_BREAK) & (codes[:-1] == RETURN))
    run = np.cumsum(begins)
    counts = np.bincount(run[broken], minlength=run[-1] + 1)
    return np.where(begins, np.minimum(counts[run], MOST_BREAKS), 0)
