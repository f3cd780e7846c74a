"""Turning multiple-choice questions into documents to classify.

"joint" creates one document per question: the question and all choices, marked by letters; the class is the letter of
the answer. This is the format of the label-supervised papers. "each" creates one document per choice, right or wrong;
the answer is the choice that is right with the highest probability. "joint" lets the model compare choices, but it must
learn the meaning of the letters; "each" is easier to learn for a small model, but costs one pass per choice.
"""

from collections.abc import Iterable, Iterator
from string import ascii_uppercase
from typing import Any

from ..errors import DataError
from .records import Record

MODES = JOINT, EACH = "joint", "each"
RIGHT, WRONG = "right", "wrong"
# The key in doc.user_data of the question that a document belongs to.
QUESTION = "question"


def choice_records(records: Iterable[Record], mode: str) -> Iterator[Record]:
    """Convert records with "question", "choices" and "answer" (the index of the right choice, or null if it is not
    known) to records with a text and classes.

    RAISES (DataError): The mode is unknown, or a record is invalid.
    """
    if mode not in MODES:
        raise DataError(f"the mode {mode!r} is not known. Use one of: {', '.join(MODES)}.")
    for record in records:
        question, choices, answer = check_choices(record)
        # Identified by file and line, as several files may be read together.
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
    """Read and check the question, the choices and the answer of a record.

    RAISES (DataError): There is no question, fewer than two choices, more than there are letters, or no such answer.
    """
    question, choices, answer = record.get("question", str), record.get("choices", list), record.get("answer", int)
    if not question or choices is None:
        raise DataError(f"{record.where} does not have 'question' and 'choices'.")
    if not 2 <= len(choices) <= len(ascii_uppercase) or not all(isinstance(one, str) and one for one in choices):
        raise DataError(
            f"{record.where}: {choices!r} is not a list of 2 to {len(ascii_uppercase)} non-empty choices "
            f"({question[:60]!r})."
        )
    if answer is not None and not 0 <= answer < len(choices):
        raise DataError(f"{record.where}: the answer {answer} is none of the {len(choices)} choices; 0 is the first.")
    return question, choices, answer
