"""Texts through a pipeline, none of which takes others with it."""

from collections.abc import Sequence

from spacy.language import Language
from spacy.tokens import Doc

from ..errors import DataError
from .documents import ID, make_doc
from .sources import Tokens

# In the message of an error after which a GPU cannot be used in the same process, and how such a process ends.
DEVICE_LOST, LOST_STATUS = "CUDA error", 70
# Characters of an error that are kept.
MESSAGE_LENGTH = 1000


class DeviceLost(RuntimeError):
    """Nothing works in this process any more."""


def piped(nlp: Language, texts: Sequence[tuple[str | Tokens, str | int]]) -> list[Doc | Exception]:
    """Annotate texts as one batch. One that fails takes the others with it at first: halves are tried, with documents
    that are made anew.

    texts (Sequence[tuple]): Each with its id, which the document then has in `doc.user_data["id"]`.
    RETURNS (list[Doc | Exception]): In the same order, each text's document or why there is none.
    RAISES (DeviceLost): The GPU cannot be used any more.
    """
    made = [_made(nlp, text, id_) for text, id_ in texts]
    try:
        annotated = iter(_through(nlp, [doc for doc in made if isinstance(doc, Doc)]))
    except Exception as error:
        if DEVICE_LOST in str(error):
            raise DeviceLost(told(error)) from error
        if len(texts) == 1:
            return [error]
        half = len(texts) // 2
        return [*piped(nlp, texts[:half]), *piped(nlp, texts[half:])]
    return [next(annotated) if isinstance(outcome, Doc) else outcome for outcome in made]


def told(error: Exception) -> str:
    """What is said of a document that failed."""
    said = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
    return said[:MESSAGE_LENGTH]


def _made(nlp: Language, text: str | Tokens, id_: str | int) -> Doc | Exception:
    try:
        return make_doc(nlp, text, id_)
    except Exception as error:
        return error


def _through(nlp: Language, docs: list[Doc]) -> list[Doc]:
    annotated = list(nlp.pipe(docs))
    if len(annotated) != len(docs):
        raise DataError(f"the pipeline has made {len(annotated)} documents of {len(docs)}")
    for before, after in zip(docs, annotated, strict=True):
        # A component may give another document than the one it got.
        after.user_data[ID] = before.user_data[ID]
    return annotated
