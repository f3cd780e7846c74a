"""Questions with choices, as documents to classify.

"joint" is one document a question: the question and all its choices behind letters; the class is the letter of the
answer. So do the label-supervised papers. "each" is one document a choice, right or wrong; the one that is right with
the highest probability is the answer. "joint" lets the model compare, but it must learn what the letters stand for;
"each" is the easier thing to learn for a small model, and costs one pass a choice.
"""

from collections.abc import Iterable, Iterator
from string import ascii_uppercase
from typing import Any

from ..errors import DataError
from ..pipeline.class_scorers import QUESTION, RIGHT
from .records import Record

MODES = JOINT, EACH = "joint", "each"
WRONG = "wrong"


def choice_records(records: Iterable[Record], mode: str) -> Iterator[Record]:
    """Turn records of questions with choices into records with a text and classes.

    They have "question", "choices" and "answer" (the index of the right choice, or null where it is not known).

    RAISES (DataError): There is no such mode, or a record does not fit.
    """
    if mode not in MODES:
        raise DataError(f"the mode {mode!r} is not known. Use one of: {', '.join(MODES)}.")
    for record in records:
        question, choices, answer = check_choices(record)
        # File and line: several files may be read together.
        user_data = {QUESTION: record.where}
        if mode == JOINT:
            letters = ascii_uppercase[: len(choices)]
            lines = [f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=True)]
            content: dict[str, Any] = {"text": "\n".join([question, *lines]), "user_data": user_data}
            if answer is not None:
                content["cats"] = {letter: float(i == answer) for i, letter in enumerate(letters)}
            yield Record(content, record.where)
        else:
            for i, choice in enumerate(choices):
                content = {"text": f"{question}\n{choice}", "user_data": user_data}
                if answer is not None:
                    content["cats"] = {RIGHT: float(i == answer), WRONG: float(i != answer)}
                yield Record(content, f"{record.where}, choice {i}")


def check_choices(record: Record) -> tuple[str, list[str], int | None]:
    """Check the question, the choices and the answer of a record.

    RAISES (DataError): There is no question, fewer than two choices, more than there are letters, or no such answer.
    """
    question, choices, answer = record.get("question", str), record.get("choices", list), record.get("answer", int)
    if not question or choices is None:
        raise DataError(f"{record.where} does not have 'question' and 'choices'.")
    if not 2 <= len(choices) <= len(ascii_uppercase) or not all(isinstance(one, str) and one for one in choices):
        raise DataError(
            f"{record.where}: {choices!r} is not a list of 2 to {len(ascii_uppercase)} choices, each with something in "
            f"it ({question[:60]!r})."
        )
    if answer is not None and not 0 <= answer < len(choices):
        raise DataError(f"{record.where}: the answer {answer} is none of the {len(choices)} choices, 0 is the first.")
    return question, choices, answer
