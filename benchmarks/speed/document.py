"""One document of a million words: its speed, and the memory it needs beyond the document and its vectors."""

from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc

from . import corpora
from .turns import CLOCKS

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def one_long_document(nlp: Language, words: int, data: Path | None, clock: str) -> dict[str, Any]:
    """Measure documents of a thousand words, then one of `words` words.

    nlp (Language): A pipeline with only the transformer.
    RETURNS (dict): Tokens per second of both, their ratio, and the peak of memory in bytes beyond the document and its
        float32 token vectors (None where the system does not report it).
    """
    short = corpora.long(min(words, 20_000), 1000, data)
    list(nlp.pipe(short.texts[:2]))
    short_rate = _rate(nlp, [nlp.make_doc(text) for text in short.texts], clock)
    text = corpora.long(words, words, data).texts[0]
    nlp.max_length = max(nlp.max_length, len(text) + 1)
    doc = nlp.make_doc(text)
    before = _memory("VmRSS")
    if before is not None:
        # Reset the peak.
        RESET.write_text("5")
    long_rate = _rate(nlp, [doc], clock)
    peak = _memory("VmHWM")
    vectors = doc._.trf_data.model_output.last_hidden_state.nbytes
    return {
        "tokens": len(doc),
        "tokens_per_second": long_rate,
        "tokens_per_second_of_short": short_rate,
        "ratio": long_rate / short_rate,
        "vectors_bytes": vectors,
        "extra_bytes": None if before is None or peak is None else peak - before - vectors,
    }


def _rate(nlp: Language, docs: list[Doc], clock: str) -> float:
    """Tokens per second."""
    begun = CLOCKS[clock]()
    for doc in nlp.pipe(docs):
        del doc
    return sum(map(len, docs)) / (CLOCKS[clock]() - begun)


def _memory(name: str) -> int | None:
    """A memory figure of this process in bytes; None except on Linux."""
    if not STATUS.exists():
        return None
    lines = STATUS.read_text(encoding="utf8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
