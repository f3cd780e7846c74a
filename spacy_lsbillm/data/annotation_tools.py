"""Reading the lines of annotation tools: Prodigy's, Doccano's and those of Label Studio's JSON-MIN.

Each becomes a record in the format of `records`.

Such a line contains more than a text and its labels: whether the annotation was accepted, what was asked, and who
answered. What cannot be read reliably is refused, or left out and counted.
"""

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..errors import DataError

ANSWERS = ACCEPT, REJECT, IGNORE = "accept", "reject", "ignore"
# Keys of the annotator: Prodigy's, and Label Studio's.
ANNOTATORS = ("_annotator_id", "_session_id", "annotator")
# Keys that are read in addition to those of `records`.
TOOL_KEYS = ("accept", "options", "entities", "annotation_approver", "_view_id", "_is_binary", *ANNOTATORS)
# In a record: the tokens outside of its spans are unknown.
PARTIAL = "partial"
# Prodigy's views that only show spans, those that ask about one span, and those whose spans are tags of words.
SHOWING = ("classification", "choice", "text", "text_input", "html")
ASKING = ("ner", "spans")
TAGGING = ("pos", "pos_manual")


class AnnotationTool:
    """The reader of one file, which keeps track of questions that several annotators answered.

    path (Path): The file, for messages.
    lines (Callable[[], Iterable[dict]]): Reads the file from the start.
    """

    def __init__(self, path: Path, lines: Callable[[], Iterable[dict[str, Any]]]) -> None:
        self.path = path
        self.lines = lines
        self.left_out: Counter[str] = Counter()
        # For each answered question: who answered, what, and where.
        self.answers: dict[int, tuple[Any, str, str]] = {}
        self.labels_are_spans: bool | None = None

    def read(self, content: dict[str, Any], where: str) -> dict[str, Any] | None:
        """A line reduced to the keys of `records`; None if it is left out, which `warn` counts.

        RAISES (DataError): It cannot be read reliably, or another annotator gave another answer.
        """
        if "question" in content or "choices" in content:
            return content
        _check_export(content, where)
        answer = content.get("answer")
        if answer is not None and answer not in ANSWERS:
            raise DataError(f"{where}: 'answer' is {answer!r}; it must be one of: {', '.join(ANSWERS)}.")
        if answer == IGNORE:
            self.left_out["ignored by the annotator"] += 1
            return None
        decision = answer is not None and isinstance(content.get("label"), str)
        if answer == REJECT and (not decision or _has_more(content)):
            record = None
        else:
            record = self._annotation(content, where, decision, answer)
        if self._is_repeated(content, record, where):
            reason = "repeated by another annotator"
        elif record is None:
            reason = "rejected by the annotator"
        elif "annotation_approver" in content and content["annotation_approver"] is None and _is_empty(record):
            reason = "without any annotation or approval"
        else:
            return record
        self.left_out[reason] += 1
        return None

    def warn(self) -> None:
        """Warn once of the number of lines that were left out, and why."""
        if self.left_out:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
            warnings.warn(f"{self.path}: {self.left_out.total():,} lines are left out: {reasons}.", stacklevel=2)

    def _annotation(self, content: dict[str, Any], where: str, decision: bool, answer: str | None) -> dict[str, Any]:
        """The line in the format of `records`."""
        view = content.get("_view_id")
        record = {key: value for key, value in content.items() if key not in (*TOOL_KEYS, "answer", PARTIAL)}
        self._read_labels(record, where)
        if content.get("entities") is not None:
            _add_spans(record, content["entities"], "entities", where)
        if record.get("spans") is not None and view in SHOWING:
            # Shown with the question, such as matches of patterns, but not part of the answer.
            del record["spans"]
        if isinstance(record.get("spans"), list):
            if view in TAGGING:
                raise DataError(f"{where}: the spans of Prodigy's {view!r} are tags of words, which are not read.")
            record["spans"] = [one for span in record["spans"] for one in _plain_spans(span)]
            if view in ASKING or content.get("_is_binary") is True:
                record[PARTIAL] = True
        if isinstance(record.get("tokens"), list):
            record["tokens"] = _token_texts(record["tokens"], record.get("text"))
        if content.get("accept") is not None:
            record["cats"] = _choices(content, where)
        elif decision:
            # A question about this one class, which says nothing about the others.
            record["cats"] = {record.pop("label"): float(answer == ACCEPT)}
        return record

    def _read_labels(self, record: dict[str, Any], where: str) -> None:
        """Read a list of labels: classes or spans, which Doccano and Label Studio write under the same names."""
        for key in ("label", "labels"):
            value = record.get(key)
            if isinstance(value, dict) and isinstance(value.get("choices"), list):
                value = value["choices"]
            if not isinstance(value, list):
                continue
            if not value and self.labels_are_spans is None:
                self.labels_are_spans = any(map(_has_labelled_spans, self.lines()))
            if _are_spans(value) or (not value and self.labels_are_spans):
                del record[key]
                _add_spans(record, value, key, where)
            elif key == "label" and record.get("labels") is None:
                del record[key]
                record["labels"] = value

    def _is_repeated(self, content: dict[str, Any], record: dict[str, Any] | None, where: str) -> bool:
        """Whether another annotator has given the same answer to the same question.

        RAISES (DataError): Another one has given another answer.
        """
        annotator = next((content[key] for key in ANNOTATORS if content.get(key) is not None), None)
        if annotator is None:
            return False
        asked = content.get("_view_id") in ASKING or content.get("_is_binary") is True
        about = content.get("spans") if asked else None
        label = content.get("label") if isinstance(content.get("label"), str) and "answer" in content else None
        question = hash(_written([content.get("text", content.get("tokens")), content.get("_view_id"), label, about]))
        said = _written(record and {key: record.get(key) for key in ("spans", "tags", "label", "labels", "cats")})
        other, before, place = self.answers.setdefault(question, (annotator, said, where))
        if other == annotator:
            return False
        if before != said:
            raise DataError(
                f"{where}: the annotator {annotator!r} gives another answer for {str(content.get('text'))[:60]!r} than "
                f"{other!r} in {place}. Decide between them first, with Prodigy's review for example."
            )
        return True


def _check_export(content: dict[str, Any], where: str) -> None:
    for key in ("annotations", "completions"):
        if isinstance(content.get(key), list):
            raise DataError(
                f"{where} has its annotation under {key!r}, which is not read. Export it as JSON-MIN from Label "
                f"Studio, as JSONL with the names of the labels from Doccano, or write 'spans' and 'labels'."
            )


def _has_more(content: dict[str, Any]) -> bool:
    """Whether more than one class was asked about, so that it is unclear what was rejected."""
    shown = content.get("_view_id") in SHOWING
    return any(content.get(key) for key in ("accept", "tags", "entities", *(() if shown else ("spans",))))


def _has_labelled_spans(content: dict[str, Any]) -> bool:
    return any(isinstance(content.get(key), list) and _are_spans(content[key]) for key in ("label", "labels"))


def _are_spans(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(one, list | dict) for one in value)


def _add_spans(record: dict[str, Any], spans: Any, key: str, where: str) -> None:
    if record.get("spans") is not None:
        raise DataError(f"{where} has {key!r} and 'spans': leave out one of them.")
    record["spans"] = spans


def _plain_spans(span: Any) -> list[Any]:
    """A span as one or several with "start", "end" and "label", one per label.

    An invalid span is returned unchanged, and is refused later.
    """
    if isinstance(span, list) and len(span) == 3:
        return [dict(zip(("start", "end", "label"), span, strict=True))]
    if not isinstance(span, dict):
        return [span]
    plain = {key: span[key] for key in ("start", "end", "label", "text") if key in span}
    for key in ("start", "end"):
        if key not in plain and f"{key}_offset" in span:
            plain[key] = span[f"{key}_offset"]
    if "label" not in plain and isinstance(span.get("labels"), list):
        return [plain | {"label": label} for label in span["labels"]] or [span]
    return [plain]


def _token_texts(tokens: list[Any], text: Any) -> list[Any]:
    """The tokens of Prodigy's token objects. White space is left out, as it is part of the text."""
    if not tokens or not all(isinstance(token, dict) and isinstance(token.get("text"), str) for token in tokens):
        return tokens
    texts = [token["text"] for token in tokens]
    return [one for one in texts if one.strip()] if isinstance(text, str) else texts


def _choices(content: dict[str, Any], where: str) -> dict[str, float]:
    """The classes of Prodigy's choice: 1 for chosen ones, 0 for the other options."""
    accepted, options = content["accept"], content.get("options")
    ids = [option.get("id") if isinstance(option, dict) else option for option in options or []]
    if not isinstance(accepted, list) or not ids or not set(map(str, accepted)) <= set(map(str, ids)):
        raise DataError(f"{where}: 'accept' is {accepted!r}, which is not a list of ids of the 'options': {ids}.")
    chosen = set(map(str, accepted))
    return {str(one): float(str(one) in chosen) for one in ids}


def _is_empty(record: dict[str, Any]) -> bool:
    return not any(record.get(key) for key in ("spans", "tags", "label", "labels", "cats"))


def _written(value: Any) -> str:
    if isinstance(value, dict) and isinstance(value.get("spans"), list):
        value = value | {"spans": sorted(map(_written, value["spans"]))}
    return json.dumps(value, sort_keys=True)
