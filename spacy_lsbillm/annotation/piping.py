"""Running texts through a pipeline so that one that fails does not affect the others."""

from collections.abc import Sequence

from spacy.language import Language
from spacy.tokens import Doc

from ..errors import DataError
from .documents import ID, make_doc
from .sources import Tokens

# Parts of error messages after which a GPU cannot be used again in the same process, and how such a process ends.
DEVICE_LOST, LOST_STATUS = "CUDA error", 70
# Maximum length of a stored error message.
MESSAGE_LENGTH = 1000


class DeviceLost(RuntimeError):
    """The GPU is unusable in this process from now on."""


def piped(nlp: Language, texts: Sequence[tuple[str | Tokens, str | int]]) -> list[Doc | Exception]:
    """Annotate texts as one batch.

    If one fails, the batch fails at first; then its halves are tried, with new documents.

    texts (Sequence[tuple]): Texts with their ids, which documents get in `doc.user_data["id"]`.
    RETURNS (list[Doc | Exception]): In the same order, each text's document or the error.
    RAISES (DeviceLost): The GPU cannot be used any more.
    """
    made = [_made(nlp, text, id_) for text, id_ in texts]
    try:
        annotated = iter(_through(nlp, [doc for doc in made if isinstance(doc, Doc)]))
    except Exception as error:
        if DEVICE_LOST in str(error):
            raise DeviceLost(error_text(error)) from error
        if len(texts) == 1:
            return [error]
        half = len(texts) // 2
        return [*piped(nlp, texts[:half]), *piped(nlp, texts[half:])]
    return [next(annotated) if isinstance(outcome, Doc) else outcome for outcome in made]


def error_text(error: Exception) -> str:
    """The message about a document that failed."""
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
        raise DataError(f"the pipeline returned {len(annotated)} documents for {len(docs)}")
    for before, after in zip(docs, annotated, strict=True):
        # A component may return another document than the one it received.
        after.user_data[ID] = before.user_data[ID]
    return annotated
