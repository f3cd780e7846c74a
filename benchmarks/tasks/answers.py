"""The instruction that a language model gets, and its answers: annotation to JSON, and back."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spacy.tokens import Doc, Span
from spacy.util import filter_spans

# The score of a class that is in an answer; all others have 0.
CHOSEN = 1.0


@dataclass(frozen=True)
class Task:
    """The labels that the model may assign to each text, and the kind of annotation.

    kind (str): "sequence", "single" or "multi", see `sets.DataSet`.
    labels (tuple[str, ...]): Labels of spans, or classes, in alphabetical order.
    """

    kind: str
    labels: tuple[str, ...]

    def instruction(self) -> str:
        """The instruction before the first text."""
        names = ", ".join(self.labels)
        if self.kind == "sequence":
            return (
                f"Find the spans of the text that have one of these labels: {names}. Answer with JSON alone: a list of "
                f'objects such as {{"text": "…", "label": "{self.labels[0]}"}}, copied from the text and in its order; '
                f"[] if there are none."
            )
        if self.kind == "single":
            return (
                f"Which one of these classes does the text belong to: {names}? Answer with JSON alone, such as "
                f'["{self.labels[0]}"].'
            )
        return (
            f"Which of these classes does the text belong to, if any: {names}? Answer with JSON alone: a list such as "
            f'["{self.labels[0]}"]; [] if none.'
        )

    def answer(self, doc: Doc) -> str:
        """The answer that the model should give for an annotated document."""
        if self.kind == "sequence":
            return json.dumps([{"text": span.text, "label": span.label_} for span in doc.ents], ensure_ascii=False)
        return json.dumps([label for label, score in doc.cats.items() if score >= CHOSEN], ensure_ascii=False)

    def annotate(self, doc: Doc, answer: str) -> bool:
        """Write an answer into a document without annotation.

        RETURNS (bool): Whether the answer could be read; if not, it counts as an answer without spans or classes.
        """
        items = read_list(answer)
        if self.kind == "sequence":
            doc.set_ents(filter_spans(self._spans(doc, items or [])), default="outside")
        else:
            chosen = [item for item in items or [] if isinstance(item, str) and item in self.labels]
            # Where a text has one class, only the first class in the answer counts.
            chosen = chosen[:1] if self.kind == "single" else chosen
            doc.cats = {label: CHOSEN if label in chosen else 0.0 for label in self.labels}
        return items is not None

    def _spans(self, doc: Doc, items: Sequence[Any]) -> list[Span]:
        """The spans of an answer.

        Each is at its first occurrence after the span before it, or else at its first occurrence in the text.
        """
        spans, after = [], 0
        for item in items:
            text = item.get("text") if isinstance(item, dict) else None
            label = item.get("label") if isinstance(item, dict) else None
            if not isinstance(text, str) or not text or label not in self.labels:
                continue
            start = doc.text.find(text, after)
            start = doc.text.find(text) if start < 0 else start
            span = doc.char_span(start, start + len(text), label=label) if start >= 0 else None
            if span is not None:
                spans.append(span)
                after = span.end_char
        return spans


def read_list(answer: str) -> list[Any] | None:
    """The first JSON list in an answer, whatever is written around it; None if there is none."""
    decoder = json.JSONDecoder()
    place = answer.find("[")
    while place >= 0:
        try:
            found, _ = decoder.raw_decode(answer, place)
        except (ValueError, RecursionError):
            place = answer.find("[", place + 1)
        else:
            return found
    return None


def labels_in(docs: Sequence[Doc], kind: str) -> tuple[str, ...]:
    """All labels in annotated documents, in alphabetical order."""
    if kind == "sequence":
        return tuple(sorted({span.label_ for doc in docs for span in doc.ents}))
    return tuple(sorted({label for doc in docs for label in doc.cats}))
