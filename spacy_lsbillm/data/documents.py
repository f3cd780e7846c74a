"""Creating spaCy documents from records.

Given tokens are kept; a text without tokens is tokenised by the language's tokenizer.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import get_words_and_spaces
from spacy.vocab import Vocab

from ..errors import DataError, in_short
from ..pipeline.label_sets import ANNOTATED, check_label_set
from .annotation_tools import PARTIAL
from .records import Record

# The tag of tokens that are not annotated: they do not count in the loss.
UNKNOWN = ("-", None)
# The key in doc.user_data of the document that a sentence is from. Sentences without it count as one document.
DOCUMENT = "document"


def tokens_alone(doc: Doc, vocab: Vocab) -> Doc:
    """A document with the same tokens and no annotation.

    vocab (Vocab): The vocabulary of the pipeline that will annotate it.
    """
    return Doc(vocab, words=[token.text for token in doc], spaces=[bool(token.whitespace_) for token in doc])


@dataclass(frozen=True)
class Labels:
    """The classes of a corpus. Each may apply to a document or not.

    names (tuple[str, ...]): Sorted.
    """

    names: tuple[str, ...] = ()

    def cats(self, chosen: Iterable[str]) -> dict[str, float]:
        """The value of `doc.cats`: 1 for classes that apply and 0 for the others."""
        return dict.fromkeys(self.names, 0.0) | dict.fromkeys(chosen, 1.0)


def labels_of(records: Iterable[Record]) -> Labels:
    """The classes that occur in records."""
    return Labels(tuple(sorted({label for record in records for label in classes(record) or []})))


def classes(record: Record) -> list[str] | None:
    """The classes of a record; None if it gives none.

    RAISES (DataError): They are not strings.
    """
    label, several = record.get("label", str), record.get("labels", list)
    if label is not None and several is not None:
        raise DataError(f"{record.where} has 'label' and 'labels': leave out one of them.")
    given = [label] if label is not None else several
    if given is not None and not all(isinstance(name, str) and name for name in given):
        raise DataError(f"{record.where}: the labels {given!r} are not all non-empty strings.")
    return given


def make_doc(nlp: Language, record: Record, labels: Labels, spans_key: str | None = None) -> Doc:
    """Create a document with the annotation of a record.

    nlp (Language): Provides tokenizer and vocabulary.
    labels (Labels): Classes that count as 0 if a record does not name them.
    spans_key (str | None): Put spans into `doc.spans[spans_key]`; None: `doc.ents`.
    RAISES (DataError): The record is invalid; the message names the file and line.
    """
    doc = _text(nlp, record)
    spans, missing = _spans(doc, record)
    if missing and spans_key is not None:
        raise DataError(
            f"{record.where}: the token {doc[missing[0]].text!r} has no annotation, which doc.spans cannot represent. "
            f"Leave out the text, or the spans key."
        )
    if spans is not None and spans_key is not None:
        doc.spans[spans_key] = spans
    elif spans is not None:
        _check_overlap(spans, record)
        doc.set_ents(spans, missing=[doc[i : i + 1] for i in missing])
    chosen, cats = classes(record), record.get("cats", dict)
    if chosen is not None and cats is not None:
        raise DataError(f"{record.where} has 'cats' beside 'label' or 'labels': leave out one of them.")
    if chosen is not None:
        doc.cats = labels.cats(chosen)
    elif cats is not None:
        if not all(type(value) in (int, float) and 0 <= value <= 1 for value in cats.values()):
            raise DataError(f"{record.where}: 'cats' is {cats!r}; each value must be a number from 0 to 1.")
        doc.cats = cats
    user_data = record.get("user_data", dict)
    if user_data:
        doc.user_data.update(user_data)
    if record.document is not None:
        doc.user_data[DOCUMENT] = record.document
    annotated = record.get(ANNOTATED, list)
    if annotated is not None:
        check_label_set(annotated, record.where)
        check_within(doc, annotated, record.where)
        doc.user_data[ANNOTATED] = annotated
    return doc


def check_within(doc: Doc, annotated: Iterable[str], where: str) -> None:
    """Check that the spans of a document have only labels for which it was annotated.

    RAISES (DataError): One has another label.
    """
    allowed = set(annotated)
    for span in all_spans(doc):
        if span.label_ not in allowed:
            raise DataError(
                f"{where}: the span {span.text!r} has the label {span.label_!r}, which is not among those for which "
                f"the document was annotated: {in_short(sorted(allowed)) or 'none'}. Name it there, or leave it out."
            )


def all_spans(doc: Doc) -> Iterator[Span]:
    """The entities and the spans of all groups."""
    yield from doc.ents
    for group in doc.spans.values():
        yield from group


def _text(nlp: Language, record: Record) -> Doc:
    text, tokens = record.get("text", str), record.get("tokens", list)
    if tokens is None:
        if text is None:
            hint = " Questions with choices need --choices." if "choices" in record.content else ""
            raise DataError(f"{record.where} has neither 'text' nor 'tokens'.{hint}")
        if len(text) > nlp.max_length:
            raise DataError(
                f"{record.where}: the text has {len(text):,} characters, but the pipeline accepts at most "
                f"{nlp.max_length:,}. Cut it into parts, or give 'tokens'."
            )
        return nlp.make_doc(text)
    if not all(isinstance(token, str) and token for token in tokens):
        raise DataError(f"{record.where}: 'tokens' contains something that is not a non-empty string.")
    if text is not None and not all(token.strip() for token in tokens):
        raise DataError(
            f"{record.where}: 'tokens' contains tokens of white space only. Leave them out, as the 'text' has it "
            f"anyway, or leave out the 'text'."
        )
    if text is None:
        # Without spaces: spaCy's corpus reader then keeps the tokens and does not tokenise the text again.
        return Doc(nlp.vocab, words=tokens)
    at = 0
    for token in tokens:
        # Only white space may occur between tokens.
        start = text.find(token, at)
        if start < 0 or text[at:start].strip():
            raise DataError(
                f"{record.where}: the tokens do not match the text: {token!r} is not what follows at character {at} of "
                f"{text[:60]!r}."
            )
        at = start + len(token)
    if text[at:].strip():
        raise DataError(f"{record.where}: the tokens do not match the text: none covers {text[at : at + 40]!r}.")
    words, spaces = get_words_and_spaces(tokens, text)
    return Doc(nlp.vocab, words=words, spaces=spaces)


def _spans(doc: Doc, record: Record) -> tuple[list[Span] | None, list[int]]:
    """The spans, None if the record gives none, and the tokens without annotation."""
    tags, spans = record.get("tags", list), record.get("spans", list)
    if tags is not None and spans is not None:
        raise DataError(f"{record.where} has 'tags' and 'spans': leave out one of them.")
    if spans is not None:
        aligned = [_char_span(doc, span, record) for span in spans]
        known = {i for span in aligned for i in range(span.start, span.end)}
        return aligned, [i for i in range(len(doc)) if i not in known] if record.content.get(PARTIAL) else []
    if tags is None:
        return None, []
    if record.get("tokens", list) is None or len(tags) != len(record.content["tokens"]):
        raise DataError(f"{record.where} has {len(tags)} tags, which is not the number of its 'tokens'.")
    # White space in the text may have become separate tokens, which have no tags.
    places = [token.i for token in doc if not token.is_space] if len(doc) != len(tags) else range(len(doc))
    aligned = [
        Span(doc, places[start], places[end - 1] + 1, label=label)
        for start, end, label in iob_spans(tags, record.where, record.content["tokens"])
    ]
    return aligned, [places[i] for i, tag in enumerate(tags) if tag in UNKNOWN]


def iob_spans(tags: Sequence[Any], where: str, tokens: Sequence[str]) -> list[tuple[int, int, str]]:
    """The spans of IOB2 tags as (first token, token after the last, label).

    Tokens with the tag "-" or null are in none.

    RAISES (DataError): A tag is not IOB2, or an I- follows nothing that it could continue. Such files are usually IOB1,
        where B- occurs only between neighbours, or damaged; a single sentence does not tell which.
    """
    spans: list[tuple[int, int, str]] = []
    for i, tag in enumerate(tags):
        kind, dash, label = tag.partition("-") if isinstance(tag, str) else ("", "", "")
        if tag == "O" or tag in UNKNOWN:
            continue
        if kind not in ("B", "I") or not dash or not label:
            raise DataError(
                f"{where}: the tag {tag!r} of {tokens[i]!r} is not IOB2: use O, B-LABEL and I-LABEL, or - for tokens "
                f"without annotation."
            )
        if kind == "B":
            spans.append((i, i + 1, label))
        elif spans and spans[-1][1] == i and spans[-1][2] == label:
            spans[-1] = (spans[-1][0], i + 1, label)
        else:
            raise DataError(
                f"{where}: {tag!r} of {tokens[i]!r} has no B-{label} before it. In IOB2 each span begins with B-: "
                f"convert the file from IOB1, or correct it."
            )
    return spans


def _char_span(doc: Doc, span: Any, record: Record) -> Span:
    try:
        start, end, label = span["start"], span["end"], span["label"]
    except (TypeError, KeyError) as error:
        raise DataError(f"{record.where}: the span {span!r} does not have 'start', 'end' and 'label'.") from error
    fine = type(start) is int and type(end) is int and 0 <= start < end <= len(doc.text)
    if not fine or not isinstance(label, str) or not label:
        raise DataError(
            f"{record.where}: the span {span!r} needs 'start' and 'end' as numbers of characters, 0 to "
            f"{len(doc.text)}, and a non-empty 'label'."
        )
    said = span.get("text")
    if isinstance(said, str) and _squeezed(said) != _squeezed(doc.text[start:end]):
        raise DataError(
            f"{record.where}: the span {start}-{end} is {doc.text[start:end]!r} in the text, but {said!r} by its own "
            f"'text'. Its 'start' and 'end' may count bytes or UTF-16 units instead of characters, or refer to another "
            f"version of the text."
        )
    aligned = doc.char_span(start, end, label=label)
    if aligned is None:
        raise DataError(
            f"{record.where}: the span {start}-{end} ({doc.text[start:end]!r}, {label}) does not begin and end with a "
            f"token. Give 'tokens' that fit it, or move it."
        )
    return aligned


def _squeezed(text: str) -> str:
    """A text without white space, and without the line breaks that Label Studio writes as a backslash and an n."""
    return "".join(text.replace("\\n", " ").split())


def _check_overlap(spans: list[Span], record: Record) -> None:
    taken: dict[int, Span] = {}
    for span in spans:
        for i in range(span.start, span.end):
            if i in taken:
                raise DataError(
                    f"{record.where}: the spans {taken[i].text!r} ({taken[i].label_}) and {span.text!r} "
                    f"({span.label_}) overlap. doc.ents cannot hold both: put them into doc.spans, with --spans-key of "
                    f"convert or spans_key of the corpus reader."
                )
            taken[i] = span
